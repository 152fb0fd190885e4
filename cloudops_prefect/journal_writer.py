"""Writing a log and its index."""

from __future__ import annotations

import os
import time

from cloudops_prefect.journal import (
    CODES,
    END_CODE,
    RECORD,
    Kind,
    Position,
    pack_record,
    read_tail,
    unpack_record,
)


class JournalWriter:
    """Appends to a log and its index, both open for reading and appending and locked by us.

    What an earlier writer left is repaired first: half a record is cut off, bytes without a record
    become stdout, and a missing end is written, so that every execution begins after an end.

    Raises:
        OSError: The files can't be repaired.
    """

    def __init__(self, log: int, index: int) -> None:
        self._log = log
        self._index = index
        self._unindexed: bytes | None = None
        # A command that prints nothing must not look as old as its last try.
        os.utime(log)
        self.start = _repair(log, index)
        """Where this writer's first byte goes."""
        self.end = self.start
        """Where its next byte goes."""

    def append(self, kind: Kind, data: bytes) -> tuple[int, int, OSError | None]:
        """Write a chunk.

        Returns:
            How many of its bytes are in the log, how many of them the index tells about, and the
            error after which nothing more must be appended.
        """
        written, error = write_all(self._log, data)
        if not written:
            return 0, 0, error
        record = pack_record(time.time_ns(), CODES[kind], self.end.log_offset + written)
        index_error = self._append_record(record)
        if index_error is not None:
            self._unindexed = record
            return written, 0, index_error
        self.end = Position(self.end.index_offset + RECORD.size, self.end.log_offset + written)
        return written, written, error

    def tail(self, kind: Kind, max_bytes: int) -> bytes:
        """Return the last bytes of one kind that this writer wrote.

        Raises:
            OSError: The files can't be read.
        """
        return read_tail((self._log, self._index), kind, max_bytes, self.start)

    def close(self) -> None:
        """Write the end, if there is room for it, and close the files."""
        log_end = self.end.log_offset
        if self._unindexed is not None and self._append_record(self._unindexed) is None:
            _, _, log_end = unpack_record(self._unindexed)
        self._append_record(pack_record(time.time_ns(), END_CODE, log_end))
        os.close(self._index)
        os.close(self._log)
        # Their numbers are soon those of other files, which a late write must not reach.
        self._index = self._log = -1

    def _append_record(self, record: bytes) -> OSError | None:
        written, error = write_all(self._index, record)
        if error is not None and written:
            os.ftruncate(self._index, os.fstat(self._index).st_size - written)
        return error


class LostJournal:
    """In place of a `JournalWriter` where there is no room for the files: nothing is written."""

    def __init__(self, error: OSError) -> None:
        self._error = error
        self.start = self.end = Position()

    def append(self, kind: Kind, data: bytes) -> tuple[int, int, OSError | None]:  # noqa: ARG002
        """Write nothing, and return why."""
        return 0, 0, self._error

    def tail(self, kind: Kind, max_bytes: int) -> bytes:  # noqa: ARG002
        """Return nothing, as nothing was written."""
        return b""

    def close(self) -> None:
        """Do nothing."""


def write_all(fd: int, data: bytes) -> tuple[int, OSError | None]:
    """Write data to a file; return how much of it was written, and the error that ended that."""
    written = 0
    try:
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, memoryview(data)[written:])
    except OSError as error:
        return written, error
    return written, None


def _repair(log: int, index: int) -> Position:
    log_end = os.fstat(log).st_size
    size = os.fstat(index).st_size
    size -= size % RECORD.size
    code, end = _record_before(index, size)
    while end > log_end:
        # Records reached the disk and their bytes didn't, when the machine went down.
        size -= RECORD.size
        code, end = _record_before(index, size)
    os.ftruncate(index, size)
    now = time.time_ns()
    records = b""
    if end < log_end:
        records += pack_record(now, CODES["stdout"], log_end)
    if records or code != END_CODE:
        records += pack_record(now, END_CODE, log_end)
    written, error = write_all(index, records)
    if error is not None:
        raise error
    return Position(size + written, log_end)


def _record_before(index: int, position: int) -> tuple[int, int]:
    if position < RECORD.size:
        return END_CODE, 0
    _, code, end = unpack_record(os.pread(index, RECORD.size, position - RECORD.size))
    return code, end
