"""Programs in a terminal of a fixed size, whose screen is read."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyte

UNWANTED = {"CI", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}


class Terminal:
    """What a person sees of a program, and types to it."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int, columns: int, rows: int) -> None:
        self.process = process
        self.written = b""
        self._fd = fd
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def line(self, beginning: str) -> str:
        return next((line for line in self.lines if line.startswith(beginning)), "")

    def colour(self, text: str) -> str:
        """The colour in which the first occurrence of a text is shown."""
        row, line = next((i, o) for i, o in enumerate(self._screen.display) if text in o)
        return self._screen.buffer[row][line.index(text)].fg

    def until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        """Reads what is written until the screen is as it should be."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "\n".join(self.lines)
            self._read(0.05)

    def wait(self, seconds: float = 30) -> int:
        """Reads to the end; returns the exit code."""
        self.until(lambda: self.process.poll() is not None, seconds)
        while self._read(0.05):
            pass
        return self.process.returncode

    def type(self, text: str) -> None:
        """Types a text, as it is."""
        os.write(self._fd, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, as the terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        """Closes the window."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self, seconds: float) -> bool:
        if not select.select([self._fd], [], [], seconds)[0]:
            return False
        # Linux says EIO once nobody has the other side open.
        with suppress(OSError):
            if data := os.read(self._fd, 65536):
                self.written += data
                self._stream.feed(data)
                return True
        return False


def _take_terminal() -> None:
    """Makes standard input the terminal that ends its processes when it is closed."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(
    argv: Sequence[str | Path],
    env: dict[str, str],
    *,
    columns: int = 80,
    rows: int = 24,
    cwd: Path | None = None,
) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {k: v for k, v in env.items() if k not in UNWANTED}
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env=env | {"TERM": "xterm-256color", "LANG": "C.UTF-8"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509 (one system call, no lock)
    ) as process:
        os.close(theirs)
        screen = Terminal(process, ours, columns, rows)
        try:
            yield screen
        finally:
            process.kill()
            screen.close()
