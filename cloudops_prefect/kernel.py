"""What the system tells of its processes, on Linux and elsewhere.

Nothing here imports anything but the standard library (psutil only where there is no /proc): the
guard runs this in an interpreter that has nothing else.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_EXEC_RETRIES = 20
_TICKS = os.sysconf("SC_CLK_TCK")
_RTTIME = re.compile(rb"^Max realtime timeout +(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Status:
    """What the kernel says of a pid now. `start` tells one user of the pid from the next."""

    start: float
    parent: int
    group: int
    session: int
    alive: bool


class Kernel(Protocol):
    """How processes are listed and read on one system."""

    # Those that return something raise OSError when nothing can be told, for want of a file
    # descriptor, say.

    def pids(self) -> Iterator[tuple[int, float]]:
        """Every pid, with a number that changes when the pid is given to another process."""
        ...

    def newest_pid(self) -> int:
        """The pid, or thread's number, that was given away last; 0 if that can't be told."""
        ...

    def those_of(self, pids: Iterable[int]) -> Iterator[tuple[int, float]]:
        """Those of `pids` that are there, threads among them, each with the number as in `pids`."""
        ...

    def status(self, pid: int) -> Status | None:
        """Its status, or None when there is no such process."""
        ...

    def environ(self, pid: int) -> bytes | None:
        """Its environment when it started, NUL-separated; empty when it may not be read.

        None when it can't be told yet, because a program is just being started.
        """
        ...

    def argv(self, pid: int) -> list[str]:
        """Its command line; empty when it can't be read."""
        ...

    def stamp(self, pid: int) -> int:
        """The stamp that it or an ancestor was given; 0 if there is none or it can't be read."""
        ...

    def give_stamp(self, pid: int, stamp: int) -> None:
        """Give a process a stamp that its descendants will have, too; nothing if that can't be."""
        ...


class ProcFs:
    """Linux: /proc, read with as few system calls as it takes."""

    def pids(self) -> Iterator[tuple[int, float]]:
        """As `Kernel` says."""
        # An inode of /proc/PID is made for one process and thrown away with it, and the directory
        # listing has its number: a pid in new hands is seen without a system call for each pid.
        with os.scandir("/proc") as entries:
            for entry in entries:
                if entry.name.isdigit():
                    yield int(entry.name), entry.inode()

    def newest_pid(self) -> int:
        """As `Kernel` says."""
        # A kernel that can't save and restore processes has only the second.
        for path in ("/proc/sys/kernel/ns_last_pid", "/proc/loadavg"):
            if text := _read(path, 4096):
                return int(text.split()[-1])
        return 0

    def those_of(self, pids: Iterable[int]) -> Iterator[tuple[int, float]]:
        """As `Kernel` says."""
        for pid in pids:
            with suppress(FileNotFoundError):
                yield pid, os.stat(f"/proc/{pid}").st_ino  # noqa: PTH116 (no Path for each pid)

    def status(self, pid: int) -> Status | None:
        """As `Kernel` says."""
        stat = _read(f"/proc/{pid}/stat", 4096)
        if not stat:
            return None
        # The program's name stands in parentheses and may hold spaces and parentheses itself.
        fields = stat[stat.rindex(b")") + 2 :].split()
        # A thread can be read by its number, too. It has no signal to send to a parent.
        if fields[35] == b"-1":
            return None
        # The first thread of a process may end before the others: it is a zombie then, and the
        # process is alive.
        alive = fields[0] not in b"ZXx" or (fields[0] == b"Z" and int(fields[17]) > 1)
        return Status(
            start=int(fields[19]),
            parent=int(fields[1]),
            group=int(fields[2]),
            session=int(fields[3]),
            alive=alive,
        )

    def environ(self, pid: int) -> bytes | None:
        """As `Kernel` says."""
        started = False
        for _ in range(_EXEC_RETRIES):
            environ = _read(f"/proc/{pid}/environ")
            if environ or started or not self._is_new(pid):
                return environ
            # Within an exec the environment reads as empty. At its end the kernel sets first the
            # arguments, of which there is at least one, and then the environment.
            started = _read(f"/proc/{pid}/cmdline") != b""
            time.sleep(0.0005)
        return None

    def _is_new(self, pid: int) -> bool:
        status = self.status(pid)
        if status is None or not status.alive:
            return False
        now = time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS
        return 0 <= now - status.start < _TICKS

    def argv(self, pid: int) -> list[str]:
        """As `Kernel` says."""
        with suppress(OSError):
            if argv := _read(f"/proc/{pid}/cmdline", 4096):
                return [os.fsdecode(arg) for arg in argv.rstrip(b"\0").split(b"\0")]
        return []

    # A stamp is the soft limit of processor time without a pause for real-time processes: thousands
    # of years, so that it limits nobody. Children inherit it whatever they do to their environment,
    # session and parents; few programs know that it exists; and one system call reads it.

    def stamp(self, pid: int) -> int:
        """As `Kernel` says."""
        try:
            return max(resource.prlimit(pid, resource.RLIMIT_RTTIME)[0], 0)
        except PermissionError:
            return self._stamp_as_text(pid)
        except OSError:
            return 0

    def _stamp_as_text(self, pid: int) -> int:
        # The system call wants all ids to be ours: of a setgid program like ssh-agent, which we may
        # signal, it tells nothing. The file tells everybody.
        limits = _read(f"/proc/{pid}/limits", 4096)
        return int(limit[1]) if (limit := _RTTIME.search(limits)) else 0

    def give_stamp(self, pid: int, stamp: int) -> None:
        """As `Kernel` says."""
        # Whoever has a limit already keeps it: it means something, or it is the stamp of a command
        # that we ourselves descend from.
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        with suppress(OSError, ValueError):
            if resource.prlimit(pid, resource.RLIMIT_RTTIME) == unlimited:
                limits = (stamp, resource.RLIM_INFINITY)
                resource.prlimit(pid, resource.RLIMIT_RTTIME, limits)
                # A shell has often forked before we come to this.
                for child in _read(f"/proc/{pid}/task/{pid}/children").split():
                    self.give_stamp(int(child), stamp)


class Psutil:
    """macOS and the BSDs: no /proc, psutil asks the kernel."""

    def pids(self) -> Iterator[tuple[int, float]]:
        """As `Kernel` says."""
        import psutil

        # Not process_iter, which doesn't notice that a pid has changed hands.
        for pid in psutil.pids():
            with suppress(psutil.Error):
                yield pid, psutil.Process(pid).create_time()

    def newest_pid(self) -> int:
        """These systems don't tell."""
        return 0

    def those_of(self, pids: Iterable[int]) -> Iterator[tuple[int, float]]:
        """As `Kernel` says."""
        import psutil

        for pid in pids:
            with suppress(psutil.Error):
                yield pid, psutil.Process(pid).create_time()

    def status(self, pid: int) -> Status | None:
        """As `Kernel` says."""
        import psutil

        try:
            process = psutil.Process(pid)
            with process.oneshot():
                return Status(
                    start=process.create_time(),
                    parent=process.ppid(),
                    group=os.getpgid(pid),
                    session=os.getsid(pid),
                    alive=process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD},
                )
        except (psutil.Error, OSError):
            return None

    def environ(self, pid: int) -> bytes | None:
        """As `Kernel` says."""
        import psutil

        try:
            environ = psutil.Process(pid).environ()
        except (psutil.Error, OSError):
            return b""
        return b"\0".join(os.fsencode(f"{name}={value}") for name, value in environ.items())

    def argv(self, pid: int) -> list[str]:
        """As `Kernel` says."""
        import psutil

        try:
            return psutil.Process(pid).cmdline()
        except (psutil.Error, OSError):
            return []

    def stamp(self, pid: int) -> int:
        """As `Kernel` says."""
        del pid
        return 0

    def give_stamp(self, pid: int, stamp: int) -> None:
        """There is no limit on these systems that only a child inherits and nobody else sets."""


def this_kernel() -> Kernel:
    """The way to read processes that works on this system."""
    return ProcFs() if sys.platform == "linux" else Psutil()


def open_pidfd(pid: int) -> int | None:
    """A file descriptor that stands for a process and becomes readable when it has ended.

    None where the kernel has none (before Linux 5.3, other systems), a sandbox refuses it, or no
    descriptor is left.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _read(path: str, size: int = 1 << 16) -> bytes:
    """Read a file of /proc; empty when there is no such process, or it is none of our business.

    Raises:
        OSError: Nothing is known of the process, because we have no file descriptor left, say.
    """
    chunks: list[bytes] = []
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while chunk := os.read(fd, size):
                chunks.append(chunk)
                if len(chunk) < size:
                    break
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    return b"".join(chunks)
