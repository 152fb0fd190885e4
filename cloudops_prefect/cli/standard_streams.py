"""The standard streams: closed, full or broken ones end no run."""

import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class LastingFile(io.RawIOBase):
    """Writes to a file descriptor for as long as that takes anything; the rest goes nowhere.

    Attributes:
        name: What messages call it.
        loss: Why something could not be written. A reader that has left, as `head` does, is no
            loss.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.loss: str | None = None
        self._fd = fd
        self._takes = True

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._fd)

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write data; return how much of it is done with."""
        if self._takes:
            try:
                return self._write(data)
            except OSError as error:
                self._takes = False
                if not isinstance(error, BrokenPipeError):
                    self.loss = error.strerror
        return memoryview(data).nbytes

    def _write(self, data: "ReadableBuffer") -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                # A process that shares the terminal or pipe may have made it non-blocking.
                select.select([], [self._fd], [])


def make_lasting() -> None:
    """Open the streams that are closed on the null device, and outlast those that break."""
    for fd in range(3):
        if not _is_open(fd):
            # It gets the lowest free number, this one, which a log file or socket would get else.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003
    sys.stdin = sys.stdin or io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = _lasting(sys.stdout, 1, "<stdout>")
    sys.stderr = _lasting(sys.stderr, 2, "<stderr>")


def loss_of(stream: TextIO) -> str | None:
    """Return the name of a stream and why it could not be written; None if it could be."""
    stream.flush()
    raw: object = getattr(getattr(stream, "buffer", None), "raw", None)
    if not isinstance(raw, LastingFile) or raw.loss is None:
        return None
    return f"{raw.name}: {raw.loss}"


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _lasting(stream: TextIO | None, fd: int, name: str) -> TextIO:
    # What the type checker does not know: Python has None where the stream was closed at its start.
    encoding = "utf-8" if stream is None else stream.encoding
    raw = LastingFile(fd, name)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=fd != 1 or raw.isatty(),
    )
