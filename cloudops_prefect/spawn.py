"""Starting a program, the pipes that it prints into, and why it couldn't be started."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from cloudops_prefect.errors import SpawnFailedError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

Stream: TypeAlias = Literal["stdout", "stderr"]

_PIPE_SIZE = 1 << 16
_LARGE_PIPE_SIZE = 1 << 18

_REASONS = {
    errno.E2BIG: "argument list too long",
    errno.EACCES: "not executable (permission denied)",
    errno.EMFILE: "this process has too many open files",
    errno.ENOEXEC: "neither a binary for this machine nor a script that begins with #!",
    errno.ENOENT: "program not found",
    errno.ENOTDIR: "program not found",
}


@dataclass(frozen=True, slots=True)
class Spawned:
    """A program that runs, and the ends of the pipes that we read what it prints from."""

    popen: subprocess.Popen[bytes]
    stdout: int
    stderr: int

    def abandon(self) -> None:
        """Kill it: there is nobody to look after it."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        for fd in (self.stdout, self.stderr):
            with suppress(OSError):
                os.close(fd)


def spawn(argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path | None) -> Spawned:
    """Start a program as the leader of a session of its own, with nothing to read from stdin.

    Raises:
        SpawnFailedError: The message names the program and the reason.
    """
    fds: list[int] = []
    try:
        for _ in range(2):
            fds.extend(os.pipe())
        stdout, stdout_end, stderr, stderr_end = fds
        # Not asyncio's: its watchers of children need a thread each, or the main thread's loop.
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout_end,
            stderr=stderr_end,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError, IndexError) as error:
        for fd in fds:
            os.close(fd)
        program = str(argv[0]) if argv else ""
        raise SpawnFailedError(f"{program!r}: {_reason(error, program, env, cwd)}") from error
    os.close(stdout_end)
    os.close(stderr_end)
    return Spawned(popen, stdout, stderr)


class OutputPipe:
    """Reads what a command prints: in the event loop, as it comes."""

    def __init__(
        self,
        fd: int,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[bytes], None],
    ) -> None:
        self.open = True
        """Whether anybody can still print into it."""
        self.fd = fd
        """Where it is read from, as long as it is open."""
        self._loop = loop
        self._deliver = deliver
        self._size = _PIPE_SIZE
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read)

    def drain(self) -> None:
        """Read what is in the pipe now, also if other processes hold it open."""
        left = _unread(self.fd) if self.open else 0
        while left > 0 and (read := self._read()):
            left -= read

    def detach(self) -> None:
        """Stop reading, and leave the file descriptor to somebody else."""
        if self.open:
            self.open = False
            remove_reader(self._loop, self.fd)

    def close(self) -> None:
        """Stop reading."""
        if self.open:
            self.open = False
            remove_reader(self._loop, self.fd)
            os.close(self.fd)

    def _read(self) -> int:
        try:
            chunk = os.read(self.fd, self._size)
        except BlockingIOError:
            return 0
        if chunk:
            if len(chunk) == _PIPE_SIZE == self._size:
                self._enlarge()
            self._deliver(chunk)
        else:
            self.close()
        return len(chunk)

    def _enlarge(self) -> None:
        # Only for a command that has filled its pipe, and not as far as the kernel would go: Linux
        # allows a user 64 MiB of pipes in all, and once they are used up every new pipe of theirs,
        # inside their commands too, holds two pages.
        self._size = _LARGE_PIPE_SIZE
        if sys.platform == "linux":
            with suppress(OSError):
                fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, _LARGE_PIPE_SIZE)


def _reason(error: Exception, program: str, env: Mapping[str, str], cwd: Path | None) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if cwd is not None and str(error.filename) == str(cwd):
        return f"working directory {cwd}: {error.strerror}"
    if "/" in program:
        path = (cwd or Path()) / program
        if path.is_dir():
            return "is a directory"
        if error.errno == errno.ENOENT and path.exists():
            return "the interpreter that its first line names, or its loader, was not found"
    elif not shutil.which(program, mode=os.F_OK, path=env.get("PATH")):
        # A directory of PATH that may not be searched makes a missing program look forbidden.
        return _REASONS[errno.ENOENT] if error.errno == errno.EACCES else _said(error)
    return _said(error)


def _said(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def _unread(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def remove_reader(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    """`loop.remove_reader` for a loop that may have been closed."""
    with suppress(RuntimeError):
        loop.remove_reader(fd)


def wait_without_reaping(pid: int) -> None:
    """Block until a child has ended, and leave it to be waited for."""
    if hasattr(os, "waitid"):
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    elif sys.platform == "darwin":
        # Python before 3.13.
        event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
        queue = select.kqueue()
        with suppress(ProcessLookupError):
            queue.control([event], 1)
        queue.close()
