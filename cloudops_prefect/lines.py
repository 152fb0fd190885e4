"""The lines of a log, followed while they are printed."""

from __future__ import annotations

import inspect
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

import anyio
import anyio.lowlevel

from cloudops_prefect.doorbell import Doorbell
from cloudops_prefect.framing import LineGroup, LogLines, UnfinishedLines
from cloudops_prefect.journal import OutputReader

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from cloudops_prefect.journal import Chunk, Kind, Position

UNFINISHED_INTERVAL_SECONDS = 0.2
"""The least time between two states of an unfinished line that are followed."""

# Lines of text take ten times the bytes that they are made of, and each follower holds a batch.
_READ_BYTES = 65_536
_SHORTEST_POLL = 0.01
_LONGEST_POLL = 0.05
_POLL_WITH_BELL = 1.0
_STILL_RUNNING_EVERY = 1.0
_IMPATIENT_POLL = 0.1
# So that a command that prints line by line wakes its reader 200 times a second, not 10 000 times.
_SETTLE = 0.005


async def follow_groups(
    path: Path,
    *,
    start: Position | None = None,
    still_running: Callable[[], bool | Awaitable[bool]] | None = None,
    unfinished: bool = False,
) -> AsyncGenerator[LineGroup, None]:
    """Yield the lines of a log in groups, from the first, and go on while it is being written.

    A writer in the same process is heard at once, another one within 50 ms. What hasn't been asked
    for stays in the file, so that a slow consumer needs no memory.

    Args:
        path: The log file, which need not exist yet.
        start: Where to begin instead of at the first byte, such as `OutputLog.start`.
        still_running: Asked once a second while nothing comes, for a writer that died without
            writing an end; once it says no, what is there is yielded and this ends. Without it the
            end is waited for.
        unfinished: Yield unfinished lines, too, which will come again when they have changed or
            are finished.

    Raises:
        ExecutionIOError: The log exists and can't be read.
    """
    lines = LogLines()
    shown = UnfinishedLines(lines, lambda _: UNFINISHED_INTERVAL_SECONDS)
    with OutputReader(path, start) as reader, _Listener(path, still_running) as listener:
        async for chunks in _follow(reader, listener):
            for chunk in chunks:
                if group := lines.feed(chunk):
                    yield group
            if unfinished and not reader.ended:
                for group in shown.due(time.monotonic()):
                    yield group
                listener.is_impatient = shown.are_pending(time.monotonic())
            if reader.ended:
                for group in lines.flush():
                    yield group
    for group in lines.flush():
        yield group


async def follow_lines(
    path: Path,
    *,
    start: Position | None = None,
    still_running: Callable[[], bool | Awaitable[bool]] | None = None,
) -> AsyncGenerator[tuple[Kind, str, datetime], None]:
    """Yield kind, text and time of each line of a log; arguments and errors as `follow_groups`."""
    groups = follow_groups(path, start=start, still_running=still_running)
    async with aclosing(groups):
        async for group in groups:
            for line in group.lines:
                yield group.kind, line, group.time


def read_lines(path: Path, start: Position | None = None) -> Iterator[LineGroup]:
    """Yield the lines that a log holds now, also those of a writer that died, without waiting.

    Raises:
        ExecutionIOError: The log exists and can't be read.
    """
    lines = LogLines()
    with OutputReader(path, start) as reader:
        for chunk in _rest(reader):
            if group := lines.feed(chunk):
                yield group
    yield from lines.flush()


class _Listener:
    """Waits until a log may have grown."""

    def __init__(
        self, path: Path, still_running: Callable[[], bool | Awaitable[bool]] | None
    ) -> None:
        self._bell = Doorbell.at(path)
        self._event: asyncio.Event | None = None
        self._still_running = still_running
        self._asked = float("-inf")
        self._woken = float("-inf")
        self._poll = _SHORTEST_POLL
        self.is_impatient = False
        """Whether there is something to do soon, also if nothing comes."""

    def listen(self) -> asyncio.Event:
        # Before the read that finds nothing, so that what is written after that read is heard.
        if self._event is None or self._event.is_set():
            self._event = self._bell.listen()
        return self._event

    def heard(self) -> None:
        self._poll = _SHORTEST_POLL

    async def wait(self, event: asyncio.Event) -> bool:
        """Wait a moment; return False if the writer is known to be gone."""
        if await self._is_writer_gone():
            return False
        poll = _POLL_WITH_BELL if self._bell.has_ringer else self._poll
        poll = min(poll, _IMPATIENT_POLL) if self.is_impatient else poll
        self._poll = min(self._poll * 2, _LONGEST_POLL)
        with anyio.move_on_after(poll):
            await event.wait()
        await anyio.sleep(max(0.0, self._woken + _SETTLE - time.monotonic()))
        self._woken = time.monotonic()
        return True

    async def _is_writer_gone(self) -> bool:
        if self._still_running is None or time.monotonic() - self._asked < _STILL_RUNNING_EVERY:
            return False
        running = self._still_running()
        if inspect.isawaitable(running):
            running = await running
        self._asked = time.monotonic()
        return not running

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._event is not None:
            self._bell.forget(self._event)


async def _follow(
    reader: OutputReader, listener: _Listener
) -> AsyncGenerator[Sequence[Chunk], None]:
    while True:
        event = listener.listen()
        before = reader.position
        chunks = reader.read(_READ_BYTES)
        if reader.position != before:
            yield chunks
            listener.heard()
            await anyio.lowlevel.checkpoint()
        elif reader.ended:
            return
        elif not await listener.wait(event):
            break
        else:
            yield ()
    for chunk in _rest(reader):
        yield (chunk,)


def _rest(reader: OutputReader) -> Iterator[Chunk]:
    """Read what there is of a log that nobody writes."""
    while True:
        before = reader.position
        yield from reader.read()
        if reader.position == before:
            break
    while chunks := reader.read_unindexed():
        yield from chunks
