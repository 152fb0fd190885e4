"""A command's output as the log records that the Prefect API gets of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING

from prefect.client.schemas.actions import LogCreate

from cloudops_prefect.framing import LogLines, UnfinishedLines
from cloudops_prefect.unicode_text import path_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from uuid import UUID

    from cloudops_prefect.errors import ExecutionIOError
    from cloudops_prefect.output import Chunk, LineGroup, OutputReader

BEGINNING = datetime.min.replace(tzinfo=UTC)
READ_BYTES = 512 * 1024
RECORD_BYTES = 256 * 1024
"""The longest record; a byte that was printed may take three in it."""
PIECE = 4096
"""Characters of a record's pieces: what is refused of this length would be refused of any."""
APART = timedelta(microseconds=256)
"""The least time between two records, so that each piece of the first has a time of its own."""
MOST_TURNS = 20
"""Records that one look at a command's output makes at most, of the two streams taking turns."""
UNFINISHED_CHARACTERS = 2048
"""How much of an unfinished line's end the API gets."""
LONGEST_UNFINISHED_GAP = 30.0
"""Seconds between two states of a line that stays unfinished for long."""
MOST_FAILURES = 40
"""Looks at the output of a command that has ended after which it is called unreadable."""

LIMIT = "limit"
PREFIX = "cloudops."
UNFINISHED_PREFIX = "cloudops_unfinished."
"""Of records of unfinished lines, each of which comes again within one of whole lines."""
LEVELS = dict.fromkeys(("stderr", "note", LIMIT), logging.WARNING) | {"stdout": logging.INFO}


@dataclass(slots=True)
class OutputFeed:
    """An execution's output on its way to the API.

    Attributes:
        budget: Bytes of output that may still be sent.
        record_bytes: How long a record may be.
        ended: Whether the command has ended, so that its last bytes are there to be read.
        drained: Whether nothing more is to be sent.
    """

    path: Path
    flow_run_id: UUID
    task_run_id: UUID | None
    budget: int
    reader: OutputReader
    record_bytes: int = RECORD_BYTES
    ended: bool = False
    drained: bool = False
    failures: int = 0
    last: datetime = BEGINNING
    lines: LogLines = field(init=False)
    unfinished: UnfinishedLines = field(init=False)

    def __post_init__(self) -> None:
        self.lines = LogLines(self.record_bytes // 4)
        self.unfinished = UnfinishedLines(self.lines, _gap_after)

    def next_records(self) -> list[LogCreate]:
        """Reads on and returns log records of whole lines, none if nothing has been printed.

        A line that stays unfinished has a record of its own name, and comes again as a whole.

        Raises:
            ExecutionIOError: The log can't be read.
        """
        chunks = self.reader.read(READ_BYTES)
        at_end = self.ended and not chunks
        groups = self.lines.flush() if at_end else map(self.lines.feed, _joined(chunks))
        records = [record for group in groups if group for record in self._records(group)]
        if not self.ended:
            records += self._unfinished_records()
        self.drained = self.drained or at_end
        return records

    def unreadable(self, error: ExecutionIOError) -> list[LogCreate]:
        """Returns a record that says so once it is certain: files that are too many may close."""
        self.failures += self.ended
        is_certain = self.failures >= MOST_FAILURES
        return [self._rest_is_here(str(error), datetime.now(UTC))] if is_certain else []

    def _records(self, group: LineGroup) -> Iterator[LogCreate]:
        # PostgreSQL's text can't hold a NUL.
        text = "\n".join(group.lines).replace("\0", "\N{SYMBOL FOR NULL}")
        data = f"{text}\n".encode()
        while data and not self.drained:
            size = data.rfind(b"\n", 0, min(self.record_bytes, self.budget)) + 1
            if not size:
                reason = "the limit of output sent to the API is reached"
                yield self._rest_is_here(reason, group.time)
                return
            self.budget -= size
            yield self._record(group.kind, data[: size - 1].decode(), group.time)
            data = data[size:]

    def _unfinished_records(self) -> Iterator[LogCreate]:
        for group in self.unfinished.due(monotonic()):
            text = (group.unfinished or "").replace("\0", "\N{SYMBOL FOR NULL}")
            if len(text) > UNFINISHED_CHARACTERS:
                text = f"…{text[1 - UNFINISHED_CHARACTERS :]}"
            size = len(text.encode())
            if not self.drained and size < self.budget:
                self.budget -= size
                yield self._record(group.kind, text, group.time, UNFINISHED_PREFIX)

    def _rest_is_here(self, reason: str, time: datetime) -> LogCreate:
        self.drained = True
        text = f"[cloudops] {reason}; the rest is in {path_text(self.path)}"
        return self._record(LIMIT, text, time)

    def _record(self, kind: str, text: str, time: datetime, prefix: str = PREFIX) -> LogCreate:
        # The API sorts by time alone: records of one execution must not share a microsecond.
        self.last = max(time, self.last + APART)
        return LogCreate(
            name=f"{prefix}{kind}",
            level=LEVELS[kind],
            message=text,
            timestamp=self.last,  # pyright: ignore[reportArgumentType]
            flow_run_id=self.flow_run_id,
            task_run_id=self.task_run_id,
        )


def _gap_after(times: int) -> float:
    # A progress bar of an hour is some hundred records, of a minute ten.
    return min(2.0 ** (times - 1), LONGEST_UNFINISHED_GAP)


def in_pieces(record: LogCreate) -> list[LogCreate]:
    """Cuts a record into shorter ones of whole lines; a line that is longer itself is cut too."""
    pieces: list[list[str]] = []
    room = 0
    for line in record.message.split("\n"):
        for begin in range(0, len(line) or 1, PIECE):
            part = line[begin : begin + PIECE]
            if not pieces or len(part) > room:
                pieces.append([])
                room = PIECE
            pieces[-1].append(part)
            room -= len(part) + 1
    times = (record.timestamp + timedelta(microseconds=number) for number in range(len(pieces)))
    return [
        record.model_copy(update={"message": "\n".join(lines), "timestamp": time})
        for lines, time in zip(pieces, times, strict=True)
    ]


def _joined(chunks: list[Chunk]) -> list[Chunk]:
    """Joins what the same stream printed: a program that prints line by line makes many chunks.

    Streams that take turns all the time are put one behind the other, each in its own order.
    """
    turns = _turns(chunks)
    return turns if len(turns) <= MOST_TURNS else _turns(sorted(chunks, key=attrgetter("kind")))


def _turns(chunks: list[Chunk]) -> list[Chunk]:
    turns = [[*turn] for _, turn in groupby(chunks, key=attrgetter("kind"))]
    return [
        first._replace(data=b"".join(one.data for one in (first, *rest))) for first, *rest in turns
    ]
