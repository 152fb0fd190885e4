"""Recording what one command prints: the log file, its index, and the end of each stream."""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Self

from cloudops_prefect.doorbell import Doorbell
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.framing import LineFramer, LineGroup
from cloudops_prefect.journal import (
    STREAMS,
    Chunk,
    Kind,
    OutputReader,
    Position,
    Stream,
    index_path,
    tail_of,
)
from cloudops_prefect.journal_writer import JournalWriter, LostJournal, write_all
from cloudops_prefect.lines import follow_groups, follow_lines, read_lines
from cloudops_prefect.logfiles import (
    open_copy,
    open_directory,
    open_locked,
    open_private,
)
from cloudops_prefect.redaction import Redactor

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Chunk",
    "Kind",
    "LineFramer",
    "LineGroup",
    "OutputLog",
    "OutputReader",
    "Position",
    "Redactor",
    "Stream",
    "captured_output",
    "follow_groups",
    "follow_lines",
    "read_lines",
]

_TAIL_BLOCK = 65_536
_SHORT = 8_192
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class OutputLog:
    """What one command prints, recorded as it comes; made by `OutputLog.open`.

    To be used from one thread. Memory doesn't grow with the output: the end of each stream is read
    back from the log, and is kept in memory only from the moment on when the log can't be written.
    Writing never raises, whatever happens to the log (a full disk): see `loss`.
    """

    def __init__(
        self,
        path: Path,
        journal: JournalWriter | LostJournal,
        *,
        max_output_bytes: int,
        redactor: Redactor | None,
        copy: _Copy | None,
    ) -> None:
        self.path = path
        self.start = journal.start
        """Where in the log this command's output begins: not at 0 if it was run before."""
        self._journal = journal
        self._max = max_output_bytes
        # A fresh one, because commands share their secrets but not what is held back of each.
        self._redactor = redactor.fresh() if redactor else None
        self._copy = copy
        self._printed: dict[Stream, int] = dict.fromkeys(STREAMS, 0)
        self._at_line_start = True
        self._tails: dict[Stream, _Tail] | None = None
        # So that a log which its own command removes still gives most commands a result.
        self._kept: dict[Stream, bytes] = {}
        self._end: Position | None = None
        self._log_loss = _Loss(path)
        self._bell = Doorbell.at(path)
        self._bell.has_ringer = True
        self._bell.ring()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        max_output_bytes: int,
        redactor: Redactor | None = None,
        copy_to: Path | None = None,
    ) -> Self:
        """Open the log of an execution; one that exists, from an earlier try, is appended to.

        Args:
            path: `{log_dir}/{execution_id}.log`. The directory is made if it isn't there.
            max_output_bytes: How much of each stream's end `captured` returns.
            redactor: The secrets that are replaced in everything that is recorded.
            copy_to: A file for a second copy of stdout and stderr, without notes. It is emptied,
                and made with rights 0600 if it isn't there, as are the directories above it. A
                relative path starts in the directory where this process is now.

        Raises:
            ExecutionIOError: A file or directory can't be made, opened or trusted, or another
                execution is writing the log. A full disk is no reason: see `loss`.
        """
        fds: list[int] = []
        try:
            journal = _open_journal(path, fds)
            copy = None if copy_to is None else _Copy(copy_to.expanduser().absolute(), fds)
            return cls(
                path, journal, max_output_bytes=max_output_bytes, redactor=redactor, copy=copy
            )
        except BaseException:
            _close_all(fds)
            raise

    def write(self, stream: Stream, chunk: bytes) -> None:
        """Record what the command printed; what may be the start of a secret waits for the rest."""
        if self._redactor is not None:
            chunk = self._redactor.feed(stream, chunk)
        if chunk:
            self._record(stream, chunk)

    def note(self, text: str) -> None:
        """Record a remark of ours, as a line of its own in the log."""
        if self._redactor is not None:
            text = self._redactor.text(text)
        begin = "" if self._at_line_start else "\n"
        line = " ".join(text.splitlines())
        self._append("note", f"{begin}[cloudops] {line}\n".encode(errors="replace"))

    def captured(self, stream: Stream) -> tuple[str, bool]:
        """Return the end of a stream as text, and whether something before it was cut off.

        At most `max_output_bytes` before decoding; a character that the cut split is left out.
        After `close` long ends are read from the files; if those are gone, nothing is left of them.
        """
        data = self._tail(stream)
        cut_off = self._printed[stream] > len(data)
        return _decode_tail(data, cut_off=cut_off), cut_off

    @property
    def loss(self) -> str | None:
        """What couldn't be written and why, or None. What `captured` returns is never affected."""
        losses = [self._log_loss] + ([self._copy.loss] if self._copy else [])
        return "; ".join(str(loss) for loss in losses if loss.size) or None

    def flush(self) -> None:
        """Write what was held back as the possible start of a secret, when no more will come."""
        if self._redactor is not None:
            for stream in STREAMS:
                if rest := self._redactor.flush(stream):
                    self._record(stream, rest)

    def close(self) -> None:
        """Write what was held back and the end, and let go of the files. Twice is once."""
        if self._end is not None:
            return
        self.flush()
        self._kept = {stream: self._tail(stream) for stream in STREAMS if self._is_short(stream)}
        self._end = self._journal.end
        self._journal.close()
        if self._copy is not None:
            self._copy.close()
        self._bell.has_ringer = False
        self._bell.ring()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record(self, stream: Stream, data: bytes) -> None:
        self._printed[stream] += len(data)
        self._append(stream, data)
        if self._copy is not None:
            self._copy.write(data)

    def _append(self, kind: Kind, data: bytes) -> None:
        written = indexed = 0
        if self._tails is None:
            written, indexed, error = self._journal.append(kind, data)
            self._bell.ring()
            self._at_line_start = data.endswith(b"\n")
            if error is None:
                return
            self._log_loss.add(0, error)
            self._tails = {stream: _Tail(self._max, self._tail(stream)) for stream in STREAMS}
        if kind != "note":
            self._log_loss.add(len(data) - written)
            self._tails[kind].add(data[indexed:])

    def _is_short(self, stream: Stream) -> bool:
        return min(self._printed[stream], self._max) <= _SHORT

    def _tail(self, stream: Stream) -> bytes:
        if self._tails is not None:
            return self._tails[stream].data
        if stream in self._kept:
            return self._kept[stream]
        try:
            # No more than there is: for more the whole index would be searched.
            wanted = min(self._max, self._printed[stream])
            if self._end is None:
                return self._journal.tail(stream, wanted)
            return tail_of(self.path, stream, wanted, self.start, self._end)
        except OSError:
            return b""


def captured_output(
    path: Path, stream: Stream, max_bytes: int, start: Position | None = None
) -> tuple[str, bool]:
    """Return the end of a stream as text from a log, and whether something before it was cut off.

    As `OutputLog.captured`, for any process and any time. A log that was written by several tries
    counts as one, unless `start` says where one of them began.

    Raises:
        ExecutionIOError: The log can't be read, or isn't there.
    """
    try:
        # One byte more tells whether there is more.
        data = tail_of(path, stream, max_bytes + 1, start)
    except OSError as error:
        raise ExecutionIOError(f"can't read {path}: {error.strerror}") from error
    cut_off = len(data) > max_bytes
    return _decode_tail(data[1:] if cut_off else data, cut_off=cut_off), cut_off


class _Loss:
    """What couldn't be written to a file, and why."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = 0
        self.reason: str | None = None

    def add(self, size: int, error: OSError | None = None) -> None:
        self.size += size
        if error is not None:
            self.reason = error.strerror

    def __str__(self) -> str:
        return f"{self.size} bytes of output could not be written to {self._path}: {self.reason}"


class _Copy:
    """The second copy of stdout and stderr, in a file of the user's.

    Raises:
        ExecutionIOError: It can't be opened, for another reason than a full disk.
    """

    def __init__(self, path: Path, fds: list[int]) -> None:
        self.loss = _Loss(path)
        self._fd = -1
        try:
            self._fd = open_copy(path, fds)
        except ExecutionIOError as error:
            self.loss.add(0, _disk_is_full(error))
        else:
            fds.append(self._fd)

    def write(self, data: bytes) -> None:
        written, error = 0, None
        if self.loss.reason is None:
            written, error = write_all(self._fd, data)
        self.loss.add(len(data) - written, error)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open_journal(path: Path, fds: list[int]) -> JournalWriter | LostJournal:
    try:
        return _open_files(path, fds)
    except ExecutionIOError as error:
        full = _disk_is_full(error)
        _close_all(fds)
        return LostJournal(full)


def _open_files(path: Path, fds: list[int]) -> JournalWriter:
    directory = open_directory(path.parent)
    try:
        fds.append(open_locked(directory, path))
        fds.append(open_private(directory, index_path(path)))
        return JournalWriter(fds[0], fds[1])
    except OSError as error:
        raise ExecutionIOError(f"log file {path}: {error.strerror}") from error
    finally:
        os.close(directory)


def _disk_is_full(error: ExecutionIOError) -> OSError:
    """Return the cause, which is that there is no room; raise the error if it is something else."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in _FULL:
        return cause
    raise error


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


class _Tail:
    """The last bytes of a stream, in blocks, so that small chunks need no more than big ones."""

    def __init__(self, max_bytes: int, data: bytes) -> None:
        self._max = max_bytes
        self._blocks: deque[bytearray] = deque()
        self._size = 0
        self.add(data)

    def add(self, data: bytes) -> None:
        if self._blocks and len(self._blocks[-1]) < _TAIL_BLOCK:
            self._blocks[-1] += data
        else:
            self._blocks.append(bytearray(data))
        self._size += len(data)
        while self._size - len(self._blocks[0]) >= self._max:
            self._size -= len(self._blocks.popleft())

    @property
    def data(self) -> bytes:
        return b"".join(self._blocks)[-self._max :]


def _decode_tail(data: bytes, *, cut_off: bool) -> str:
    begin = 0
    if cut_off:
        while begin < min(3, len(data)) and data[begin] & 0xC0 == 0x80:
            begin += 1
    return data[begin:].decode("utf-8", "replace")
