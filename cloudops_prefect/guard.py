"""Stops what this process has started when this process is killed.

A guard is a small process of its own that waits for a pipe to end. Only we hold the pipe's other
end, so it ends when we do, whatever ends us. Which processes are ours the guard reads off their
environments: it is told nothing while commands come and go.

What if we are killed while a command is being started? Between fork and exec the child has our
environment, without a mark; but it also has our end of the pipe, which doesn't end before the child
has closed it, a few microseconds before its exec. So the guard waits for the pipe's end, also when
it has seen ours. That last moment, and that of a process that forks while the guard looks, is why
the guard wants to find nothing several times, some time apart.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from contextlib import suppress
from secrets import token_hex

from cloudops_prefect import guard_process
from cloudops_prefect.process_tree import GUARD_VARIABLE


class _Guard:
    """The guard of this process, and our end of its pipe."""

    def __init__(self) -> None:
        self.mark = token_hex(8)
        self._popen: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._lock = threading.Lock()

    def ensure(self) -> None:
        with self._lock:
            # Asked before each command: it costs one system call.
            if self._popen is None or self._popen.poll() is not None:
                self._close_pipe()
                self._start()

    def dismiss(self) -> None:
        """Let the guard see that there is nothing left to do, and end."""
        with self._lock:
            if self._popen is not None:
                with suppress(OSError):
                    os.write(self._pipe, guard_process.FAREWELL)
            self.forget()

    def forget(self) -> None:
        """Let go of the guard without a word. In a forked child it is the parent's."""
        self._close_pipe()
        if self._popen is not None:
            # Or Popen would warn of a child that nobody has waited for.
            self._popen.returncode = 0
            self._popen = None

    def _start(self) -> None:
        read_end, self._pipe = os.pipe()
        try:
            self._popen = subprocess.Popen(
                [*_interpreter(), guard_process.__file__, self.mark, str(os.getpid())],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={GUARD_VARIABLE: self.mark},
                start_new_session=True,
            )
        finally:
            os.close(read_end)

    def _close_pipe(self) -> None:
        if self._pipe != -1:
            os.close(self._pipe)
            self._pipe = -1


def _interpreter() -> list[str]:
    # Isolated from the user's settings, and on Linux without site-packages: it starts in 10 ms.
    # Elsewhere it needs psutil.
    return [sys.executable, "-I", *(["-S"] if sys.platform == "linux" else [])]


_guard = _Guard()


def ensure() -> str:
    """Have a guard for this process, and return the mark that its commands must carry.

    A command's own mark is this one, a dot and something of its own.

    Raises:
        OSError: No process can be started.
    """
    _guard.ensure()
    return _guard.mark


def _in_forked_child() -> None:
    global _guard  # noqa: PLW0603
    _guard.forget()
    _guard = _Guard()


def _at_exit() -> None:
    _guard.dismiss()


os.register_at_fork(after_in_child=_in_forked_child)
atexit.register(_at_exit)
