"""The record of what a command printed: a log of the bytes, an index that tells whose they are.

`{id}.log` holds the bytes in order of arrival. `{id}.idx` beside it holds one record of 16 bytes
for each chunk: when it came, which stream it came from, and where in the log it ends. A record is
written after its bytes, so that no reader ever sees a record of bytes that aren't there. Both files
only grow, and any process that may read them can follow them while they do.
"""

from __future__ import annotations

import os
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, get_args

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.logfiles import open_plain

if TYPE_CHECKING:
    from io import FileIO

Stream = Literal["stdout", "stderr"]
Kind = Literal["stdout", "stderr", "note"]

STREAMS: tuple[Stream, ...] = get_args(Stream)
INDEX_SUFFIX = ".idx"

# The low byte of the second word is the kind, the 56 bits above it where in the log the chunk ends.
RECORD = struct.Struct("<QQ")
_CODE_SHIFT = 8
_CODE_MASK = 0xFF
END_CODE = 0
CODES: dict[Kind, int] = {"stdout": 1, "stderr": 2, "note": 3}
_KINDS: dict[int, Kind] = {code: kind for kind, code in CODES.items()}

_INDEX_BLOCK = 4096 * RECORD.size
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Chunk(NamedTuple):
    """Bytes that arrived together, or the part of them that was asked for."""

    kind: Kind
    data: bytes
    time_ns: int
    """When they arrived, in nanoseconds since the epoch."""

    @property
    def time(self) -> datetime:
        """When they arrived, in UTC."""
        return _EPOCH + timedelta(microseconds=self.time_ns // 1000)


class Position(NamedTuple):
    """Where a reader stands: offsets into the index and into the log."""

    index_offset: int = 0
    log_offset: int = 0


def pack_record(time_ns: int, code: int, end: int) -> bytes:
    """Return the index record of a chunk that ends at offset `end` of the log."""
    return RECORD.pack(time_ns, end << _CODE_SHIFT | code)


def unpack_record(record: bytes) -> tuple[int, int, int]:
    """Return time in nanoseconds, code and end offset of an index record."""
    time_ns, packed = RECORD.unpack(record)
    return time_ns, packed & _CODE_MASK, packed >> _CODE_SHIFT


def index_path(log_path: Path) -> Path:
    """Return where the index of a log file is."""
    return log_path.with_suffix(INDEX_SUFFIX)


class OutputReader:
    """Reads a log and its index from where it stands, without ever waiting for more.

    Args:
        path: The log file, which need not exist yet.
        start: Where to begin: the `position` of another reader, of any process.
        from_end: Begin behind what is there now, as for another try of an execution.
    """

    def __init__(
        self, path: Path, start: Position | None = None, *, from_end: bool = False
    ) -> None:
        self.path = path
        self.position = _end_position(path) if from_end else start or Position()
        """Where the next read begins; it may be kept and given to another reader."""
        self._ended = False
        self._untouched = True
        self._log: FileIO | None = None
        self._index: FileIO | None = None

    @property
    def ended(self) -> bool:
        """Whether the last thing read is the end of an execution.

        A read stops there. If the execution was started again under the same id, the next read
        goes on with what it printed then, and this is false again. A reader that begins behind an
        end waits for another one.
        """
        return self._ended

    def read(self, max_bytes: int = 262_144) -> list[Chunk]:
        """Return the next chunks, at most `max_bytes` of them, or nothing if there is no more yet.

        Raises:
            ExecutionIOError: The files exist and can't be read.
        """
        self._log = self._log or _open(self.path)
        self._index = self._index or _open(index_path(self.path))
        if self._log is None or self._index is None:
            return []
        try:
            records = os.pread(self._index.fileno(), _INDEX_BLOCK, self.position.index_offset)
            spans = self._advance(records, max_bytes)
            wanted = sum(size for _, _, size in spans)
            data = os.pread(self._log.fileno(), wanted, self.position.log_offset - wanted)
        except OSError as error:
            raise ExecutionIOError(f"can't read {self.path}: {error.strerror}") from error
        return _cut(data, spans)

    def read_unindexed(self, max_bytes: int = 262_144) -> list[Chunk]:
        """Return bytes past the last index record, which nobody can tell the stream of, as stdout.

        There are some after the writer was killed between the two writes, or where the index is
        missing. Only for when nobody writes any more.

        Raises:
            ExecutionIOError: The log exists and can't be read.
        """
        log = self._log or _open(self.path)
        if log is None:
            return []
        self._log = log
        try:
            data = os.pread(log.fileno(), max_bytes, self.position.log_offset)
            time_ns = os.fstat(log.fileno()).st_mtime_ns
        except OSError as error:
            raise ExecutionIOError(f"can't read {self.path}: {error.strerror}") from error
        index_offset, log_offset = self.position
        self.position = Position(index_offset, log_offset + len(data))
        return [Chunk("stdout", data, time_ns)] if data else []

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        for file in (self._log, self._index):
            if file is not None:
                file.close()
        self._log = self._index = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _advance(self, records: bytes, budget: int) -> list[tuple[Kind, int, int]]:
        """Move past the records that fit, and return kind, time and size of what was passed."""
        spans: list[tuple[Kind, int, int]] = []
        index, log = self.position
        whole = len(records) - len(records) % RECORD.size
        for time_ns, packed in RECORD.iter_unpack(records[:whole]):
            size = (packed >> _CODE_SHIFT) - log
            if size > budget:
                # Reached also with nothing of the budget left; a record half read is read on later.
                if budget:
                    spans.append((_kind(packed), time_ns, budget))
                    log += budget
                    self._ended = False
                break
            index += RECORD.size
            if size > 0:
                spans.append((_kind(packed), time_ns, size))
                log += size
                budget -= size
            self._ended = packed & _CODE_MASK == END_CODE
            # The end of an earlier try, before anything was read, separates nothing.
            if self._ended and (spans or not self._untouched):
                break
        self.position = Position(index, log)
        self._untouched = self._untouched and not spans
        return spans


def read_tail(
    files: tuple[int, int],
    kind: Kind,
    max_bytes: int,
    floor: Position | None = None,
    ceiling: Position | None = None,
) -> bytes:
    """Return the last bytes of one kind, in the order of arrival.

    Args:
        files: File descriptors of the log and the index.
        kind: What is wanted.
        max_bytes: How much of it at most.
        floor: Nothing before this position counts.
        ceiling: Nothing after this position counts.

    Raises:
        OSError: The files can't be read.
    """
    floor = floor or Position()
    wanted = CODES[kind]
    found: list[bytes] = []
    log, index = files
    size = ceiling.index_offset if ceiling else os.fstat(index).st_size
    stop = size - size % RECORD.size
    while stop > floor.index_offset and max_bytes > 0:
        start = max(floor.index_offset, stop - _INDEX_BLOCK)
        # One record more than the block, because a chunk begins where the one before it ends.
        before = max(floor.index_offset, start - RECORD.size)
        block = os.pread(index, stop - before, before)
        ends = [packed for _, packed in RECORD.iter_unpack(block)]
        if start == floor.index_offset:
            ends.insert(0, floor.log_offset << _CODE_SHIFT)
        for position in range(len(ends) - 1, 0, -1):
            if ends[position] & _CODE_MASK != wanted:
                continue
            end = ends[position] >> _CODE_SHIFT
            begin = max(ends[position - 1] >> _CODE_SHIFT, end - max_bytes)
            found.append(os.pread(log, end - begin, begin))
            max_bytes -= end - begin
            if max_bytes <= 0:
                break
        stop = start
    return b"".join(reversed(found))


def tail_of(
    path: Path,
    kind: Kind,
    max_bytes: int,
    floor: Position | None = None,
    ceiling: Position | None = None,
) -> bytes:
    """Return what `read_tail` does, from the files of a log.

    Raises:
        OSError: The files aren't there or can't be read.
    """
    log = open_plain(path)
    try:
        index = open_plain(index_path(path))
        try:
            return read_tail((log, index), kind, max_bytes, floor, ceiling)
        finally:
            os.close(index)
    finally:
        os.close(log)


def _end_position(path: Path) -> Position:
    try:
        index_size = index_path(path).stat().st_size
        return Position(index_size - index_size % RECORD.size, path.stat().st_size)
    except FileNotFoundError:
        return Position()


def _kind(packed: int) -> Kind:
    return _KINDS.get(packed & _CODE_MASK, "stdout")


def _cut(data: bytes, spans: list[tuple[Kind, int, int]]) -> list[Chunk]:
    if len(spans) == 1:
        kind, time_ns, _ = spans[0]
        return [Chunk(kind, data, time_ns)] if data else []
    chunks: list[Chunk] = []
    begin = 0
    for kind, time_ns, size in spans:
        part = data[begin : begin + size]
        begin += size
        if part:
            chunks.append(Chunk(kind, part, time_ns))
    return chunks


def _open(path: Path) -> FileIO | None:
    try:
        return open(path, "rb", buffering=0, opener=_opener)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExecutionIOError(f"can't read {path}: {error.strerror}") from error


def _opener(path: str, _: int) -> int:
    return open_plain(Path(path))
