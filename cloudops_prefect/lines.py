"""Lines of text out of chunks of bytes, and following them while they are printed."""

from __future__ import annotations

import inspect
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple, Self

import anyio
import anyio.lowlevel

from cloudops_prefect.doorbell import Doorbell
from cloudops_prefect.journal import CODES, Chunk, Kind, OutputReader, Position

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

MAX_LINE_BYTES = 65_536

# Lines of text take ten times the bytes that they are made of, and each follower holds a batch.
_READ_BYTES = 65_536
_SHORTEST_POLL = 0.01
_LONGEST_POLL = 0.05
_POLL_WITH_BELL = 1.0
_STILL_RUNNING_EVERY = 1.0
# So that a command that prints line by line wakes its reader 200 times a second, not 10 000 times.
_SETTLE = 0.005


class LineFramer:
    r"""Cuts the bytes of one stream into lines of text.

    "\n" and "\r\n" end a line. Of a line with a lone "\r" in it, as a progress bar prints it, the
    last state that isn't empty is the line. Text is UTF-8, bad bytes become U+FFFD. The lines are
    the same however the bytes were split into chunks.

    Args:
        max_line_bytes: A line longer than that comes in pieces of at most so many bytes, none of
            which splits a character, so that a line without end needs bounded memory.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that are complete with these bytes."""
        newline = chunk.rfind(b"\n")
        if newline < 0:
            return self._keep(chunk)
        whole = chunk[:newline]
        if self._parts:
            self._parts.append(whole)
            whole = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
        lines = self._split(whole)
        rest = chunk[newline + 1 :]
        if rest:
            lines += self._keep(rest)
        return lines

    def flush(self) -> list[str]:
        """Return what stands after the last newline, if anything does."""
        rest = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return self._finish(rest) if rest.strip(b"\r") else []

    def _split(self, whole: bytes) -> list[str]:
        plain = whole
        if b"\r" in whole:
            plain = (whole + b"\n").replace(b"\r\n", b"\n")[:-1]
        if b"\r" not in plain:
            lines = plain.decode("utf-8", "replace").split("\n")
            # A character, also U+FFFD, stands for four bytes at most.
            if len(plain) <= self._max or max(map(len, lines)) * 4 <= self._max:
                return lines
        return [line for raw in whole.split(b"\n") for line in self._finish(raw)]

    def _finish(self, raw: bytes) -> list[str]:
        pieces, state, _ = self._settle(raw)
        return [*pieces, state.decode("utf-8", "replace")]

    def _keep(self, rest: bytes) -> list[str]:
        self._parts.append(rest)
        self._size += len(rest)
        if self._size <= self._max and b"\r" not in rest:
            return []
        pieces, state, returns = self._settle(b"".join(self._parts))
        kept = state + returns
        self._parts = [kept] if kept else []
        self._size = len(kept)
        return pieces

    def _settle(self, raw: bytes) -> tuple[list[str], bytes, bytes]:
        """Return the pieces too long to wait, the state that stands, and its trailing CR."""
        returns = b"\r" if raw.endswith(b"\r") else b""
        pieces: list[str] = []
        state = b""
        for segment in raw.split(b"\r"):
            if segment:
                state = segment
                begin = 0
                while len(state) - begin > self._max:
                    end = _character_boundary(state, begin, begin + self._max)
                    pieces.append(state[begin:end].decode("utf-8", "replace"))
                    begin = end
                state = state[begin:]
        return pieces, state, returns


def _character_boundary(text: bytes, begin: int, limit: int) -> int:
    """Return the last place after `begin` up to `limit` that is not within a UTF-8 character."""
    for cut in range(limit, max(limit - 4, begin), -1):
        if text[cut] & 0xC0 != 0x80:
            return cut
    return limit


class LineGroup(NamedTuple):
    """Lines of one stream that were completed by the same chunk."""

    kind: Kind
    lines: list[str]
    time: datetime


async def follow_groups(
    path: Path,
    *,
    start: Position | None = None,
    still_running: Callable[[], bool | Awaitable[bool]] | None = None,
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

    Raises:
        ExecutionIOError: The log exists and can't be read.
    """
    lines = LogLines()
    with OutputReader(path, start) as reader, _Listener(path, still_running) as listener:
        async for chunks in _follow(reader, listener):
            for chunk in chunks:
                if group := lines.feed(chunk):
                    yield group
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
        async for kind, lines, arrived in groups:
            for line in lines:
                yield kind, line, arrived


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


class LogLines:
    """Cuts the chunks of one log into lines, each stream's by itself; as `LineFramer`."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._framers: dict[Kind, LineFramer] = {kind: LineFramer(max_line_bytes) for kind in CODES}
        self._last: datetime | None = None

    def feed(self, chunk: Chunk) -> LineGroup | None:
        """Return the lines that are complete with this chunk, if there are any."""
        self._last = arrived = chunk.time
        lines = self._framers[chunk.kind].feed(chunk.data)
        if chunk.kind == "note":
            # A note begins with a newline if the output before it doesn't end with one.
            lines = [line for line in lines if line]
        return LineGroup(chunk.kind, lines, arrived) if lines else None

    def flush(self) -> Iterator[LineGroup]:
        """Yield what stands after the last newline of each stream."""
        for kind, framer in self._framers.items():
            if self._last is not None and (lines := framer.flush()):
                yield LineGroup(kind, lines, self._last)


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
