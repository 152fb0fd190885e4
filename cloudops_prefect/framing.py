"""Lines of text out of chunks of bytes."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cloudops_prefect.journal import CODES, Chunk, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

MAX_LINE_BYTES = 65_536


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

    @property
    def is_unfinished(self) -> bool:
        """Whether anything stands after the last newline."""
        return bool(self._parts)

    def unfinished(self) -> str:
        """Return what stands after the last newline, as its line would be if it ended here."""
        _, state, _ = self._settle(b"".join(self._parts))
        # Without the bytes of a character that is not all there yet.
        return codecs.getincrementaldecoder("utf-8")("replace").decode(state)

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
    """Lines of one stream that were completed by the same chunk.

    Attributes:
        unfinished: In place of lines, what the stream has printed since its last line.
    """

    kind: Kind
    lines: list[str]
    time: datetime
    unfinished: str | None = None


class LogLines:
    """Cuts the chunks of one log into lines, each stream's by itself; as `LineFramer`."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._framers: dict[Kind, LineFramer] = {kind: LineFramer(max_line_bytes) for kind in CODES}
        self._last: datetime | None = None
        self.begun: dict[Kind, datetime] = {}
        """When the unfinished line of each stream has begun that has one."""
        self.chunks: dict[Kind, int] = dict.fromkeys(CODES, 0)
        """How many chunks of each stream have come."""

    def feed(self, chunk: Chunk) -> LineGroup | None:
        """Return the lines that are complete with this chunk, if there are any."""
        self._last = arrived = chunk.time
        self.chunks[chunk.kind] += 1
        framer = self._framers[chunk.kind]
        lines = framer.feed(chunk.data)
        if not framer.is_unfinished:
            self.begun.pop(chunk.kind, None)
        elif lines or chunk.kind not in self.begun:
            self.begun[chunk.kind] = arrived
        if chunk.kind == "note":
            # A note begins with a newline if the output before it doesn't end with one.
            lines = [line for line in lines if line]
        return LineGroup(chunk.kind, lines, arrived) if lines else None

    def unfinished(self, kind: Kind) -> LineGroup:
        """Return the unfinished line of a stream that has one."""
        assert self._last is not None, "something has come"  # noqa: S101
        return LineGroup(kind, [], self._last, self._framers[kind].unfinished())

    def flush(self) -> Iterator[LineGroup]:
        """Yield what stands after the last newline of each stream."""
        for kind, framer in self._framers.items():
            if self._last is not None and (lines := framer.flush()):
                yield LineGroup(kind, lines, self._last)


@dataclass(slots=True)
class _Shown:
    """What was shown of an unfinished line: at first nothing, and `at` is when it was first seen.

    Attributes:
        chunks: How many chunks of its stream had come by then.
    """

    begun: datetime
    at: float
    text: str = ""
    times: int = 0
    chunks: int = 0


class UnfinishedLines:
    """Which unfinished lines of a log are to be shown now.

    A line that stays unfinished is shown after `AGE_SECONDS`, and again when it has changed, but
    not too often.

    Args:
        lines: The lines of the log.
        gap: Returns the least number of seconds between two times that a line is shown, given how
            often it was shown already.
    """

    AGE_SECONDS = 0.2

    def __init__(self, lines: LogLines, gap: Callable[[int], float]) -> None:
        self._lines = lines
        self._gap = gap
        self._shown: dict[Kind, _Shown] = {}

    def due(self, now: float) -> list[LineGroup]:
        """Return the unfinished lines that are to be shown now.

        Args:
            now: The time of a clock that only goes forward, in seconds.
        """
        groups: list[LineGroup] = []
        for kind, shown in self._changed(now):
            if now - shown.at >= (self._gap(shown.times) if shown.times else self.AGE_SECONDS):
                group = self._lines.unfinished(kind)
                shown.chunks = self._lines.chunks[kind]
                if group.unfinished and group.unfinished != shown.text:
                    shown.text, shown.at = group.unfinished, now
                    shown.times += 1
                    groups.append(group)
        return groups

    def are_pending(self, now: float) -> bool:
        """Return whether there are lines that are to be shown as soon as it is time."""
        return any(True for _ in self._changed(now))

    def _changed(self, now: float) -> Iterator[tuple[Kind, _Shown]]:
        for kind, begun in self._lines.begun.items():
            shown = self._shown.get(kind)
            if shown is None or shown.begun != begun:
                shown = self._shown[kind] = _Shown(begun, now)
            if shown.chunks != self._lines.chunks[kind]:
                yield kind, shown
