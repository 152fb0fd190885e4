"""Replacing secret values in output, also where a value is split across two reads."""

from __future__ import annotations

import base64
import json
import re
import string
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK = b"********"
MIN_SECRET_CHARS = 4
_MIN_LINE_CHARS = 8
_BASE64 = (string.ascii_letters + string.digits + "+/-_").encode()
# The shortest line that a program breaks base64 into is one of 60 characters, uuencode's.
_FULL_LINE = 60
_FULL_LINE_SHAPE = b"a" * _FULL_LINE + b"\n"
_SHAPES = bytes(
    ord("a") if byte in _BASE64 else byte if byte == ord("\n") else 0 for byte in range(256)
)
_MIN_BROKEN_CHARS = 8
_URL_ESCAPE = re.compile(rb"%[0-9A-F]{2}")
# Public by nature, and in the output of everything that has to do with certificates.
_PEM_ARMOUR = re.compile(rb"-----[A-Z0-9 ]+-----")


class Redactor:
    """Replaces secret values by `********`, in text that arrives in pieces.

    Found are a value as it is, and as it looks in base64 (standard and URL-safe, alone or anywhere
    within a longer text, also where that is broken into lines of 60 columns and more), URL-encoded,
    within a JSON string and within a single-quoted shell word. A value of several lines is found
    with either end of line; each line of it of at least 8 characters counts as well, except PEM's
    BEGIN and END lines. White space around a value is no part of it. Occurrences that overlap
    become one mask.

    Within a longer base64 text, the first and the last character may hold up to four bits of a
    value along with its neighbour's; those stay.

    Args:
        secrets: The values. Empty ones don't count; those under 4 characters would turn output into
            stars and are left alone, listed in `ignored`.
    """

    def __init__(self, secrets: Iterable[str | bytes] = ()) -> None:
        values: set[bytes] = set()
        ignored: list[str | bytes] = []
        for secret in secrets:
            value = _as_bytes(secret).strip()
            if len(value.decode(errors="replace")) >= MIN_SECRET_CHARS:
                values.add(value)
            elif value:
                ignored.append(secret)
        self.ignored: tuple[str | bytes, ...] = tuple(ignored)
        values = {form for value in values for form in _ends_of_line(value)}
        self._forms = _Forms({form for value in values for form in _forms(value)})
        encoded = {form for value in values for form in _base64_forms(value)}
        self._broken = _Forms({form for form in encoded if len(form) >= _MIN_BROKEN_CHARS})
        self._held: dict[str, bytes] = {}
        self._covered: dict[str, int] = {}
        # How many characters of base64 stand before what is held back, in the same line.
        self._runs: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._forms)

    def fresh(self) -> Self:
        """Return a redactor of the same secrets that has seen nothing yet."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, _held={}, _covered={}, _runs={})
        return copy

    def feed(self, stream: str, chunk: bytes) -> bytes:
        """Take the next bytes of a stream and return those that can't be part of a secret any more.

        Held back is only the longest end of what came so far that a secret may begin with.
        """
        if not self._forms:
            return chunk
        data = self._held.get(stream, b"") + chunk
        joined = _join(data, self._runs.get(stream, 0))
        hold = self._forms.start_in(data)
        if joined is not None:
            hold = min(hold, joined.begin(self._broken.start_in(joined.data)))
        return self._release(stream, data, hold, joined)

    def flush(self, stream: str) -> bytes:
        """Return what was held back, at the end of a stream."""
        data = self._held.get(stream, b"")
        joined = _join(data, self._runs.get(stream, 0))
        redacted = self._release(stream, data, len(data), joined)
        for state in (self._held, self._covered, self._runs):
            state.pop(stream, None)
        return redacted

    def text(self, text: str) -> str:
        """Return a whole text with the secrets replaced."""
        if not self._forms:
            return text
        data = _as_bytes(text)
        redacted = self.whole(data)
        return text if redacted == data else redacted.decode(errors="surrogateescape")

    def whole(self, data: bytes) -> bytes:
        """Return a whole text in bytes with the secrets replaced."""
        return _mask(data, len(data), self._occurrences(data, _join(data, 0)), 0)[0]

    def _release(self, stream: str, data: bytes, hold: int, joined: _Joined | None) -> bytes:
        covered = self._covered.get(stream, 0)
        redacted, end = _mask(data, hold, self._occurrences(data, joined), covered)
        # A secret that is masked already may reach into what is held back.
        self._covered[stream] = max(0, end - hold)
        self._runs[stream] = _run_before(data, hold, self._runs.get(stream, 0))
        self._held[stream] = data[hold:]
        return redacted

    def _occurrences(self, data: bytes, joined: _Joined | None) -> list[tuple[int, int]]:
        found = self._forms.occurrences_in(data)
        if joined is not None:
            broken = self._broken.occurrences_in(joined.data)
            found += [(joined.begin(begin), joined.end(stop)) for begin, stop in broken]
        found.sort()
        return found


class _Forms:
    """What is searched for."""

    def __init__(self, forms: set[bytes]) -> None:
        self._families = _families(forms)
        self._heads = _heads(self._families)
        self._stubs = {head[:n] for head, _, _ in self._heads for n in (1, 2, 3)}

    def __bool__(self) -> bool:
        return bool(self._families)

    def occurrences_in(self, data: bytes) -> list[tuple[int, int]]:
        """Return where forms begin and end, in no order."""
        found: list[tuple[int, int]] = []
        for stem, *longer in self._families:
            begin = data.find(stem)
            while begin >= 0:
                size = next(
                    (len(form) for form in longer if data.startswith(form, begin)), len(stem)
                )
                found.append((begin, begin + size))
                begin = data.find(stem, begin + 1)
        return found

    def start_in(self, data: bytes) -> int:
        """Return where the longest end of `data` begins that is the beginning of a form."""
        size = len(data)
        start = next((size - n for n in (3, 2, 1) if n <= size and data[-n:] in self._stubs), size)
        for head, forms, longest in self._heads:
            begin = data.find(head, max(0, size - longest + 1), start + len(head))
            while 0 <= begin < start:
                rest = data[begin:]
                if any(len(form) > len(rest) and form.startswith(rest) for form in forms):
                    start = begin
                    break
                begin = data.find(head, begin + 1, start + len(head))
        return start


class _Joined(NamedTuple):
    """Data without the ends of the lines that base64 is broken into, and where these were."""

    data: bytes
    breaks: list[int]

    def begin(self, offset: int) -> int:
        """Return where in the data as it was the byte at an offset is."""
        return offset + bisect_right(self.breaks, offset)

    def end(self, offset: int) -> int:
        """Return the same of the end of what ends at an offset."""
        return self.begin(offset - 1) + 1


def _join(data: bytes, run: int) -> _Joined | None:
    """Join the lines of base64 in data before which `run` characters of base64 stand, if any."""
    shape = b"a" * run + data.translate(_SHAPES)
    found = shape.find(_FULL_LINE_SHAPE)
    if found < 0:
        return None
    parts: list[bytes] = []
    breaks: list[int] = []
    begin = 0
    while found >= 0:
        newline = found + _FULL_LINE - run
        parts.append(data[begin:newline])
        breaks.append(newline - len(breaks))
        begin = newline + 1
        found = shape.find(_FULL_LINE_SHAPE, newline + run)
    parts.append(data[begin:])
    return _Joined(b"".join(parts), breaks)


def _run_before(data: bytes, end: int, run: int) -> int:
    """Return how many characters of base64 stand before an offset, as far as that counts."""
    before = data[max(0, end - _FULL_LINE) : end]
    found = len(before) - len(before.rstrip(_BASE64))
    return min(_FULL_LINE, found + run if found == end else found)


@lru_cache(maxsize=8)
def shared_redactor(secrets: frozenset[str]) -> Redactor:
    """Return a redactor for whole texts: one is made once for commands that share their secrets."""
    return Redactor(secrets)


def _mask(
    data: bytes, hold: int, occurrences: list[tuple[int, int]], covered: int
) -> tuple[bytes, int]:
    """Return `data[covered:hold]` with masks, and where the last mask's secret ends."""
    parts: list[bytes] = []
    end = covered
    for begin, stop in occurrences:
        if begin >= hold:
            break
        if begin >= end:
            parts += (data[end:begin], MASK)
        end = max(end, stop)
    parts.append(data[end:hold])
    return b"".join(parts), end


def _as_bytes(secret: str | bytes) -> bytes:
    # As os.fsencode, so that a variable of the environment is found as the process prints it.
    if isinstance(secret, bytes):
        return secret
    try:
        return secret.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return secret.encode(errors="surrogatepass")


def _ends_of_line(value: bytes) -> tuple[bytes, bytes, bytes]:
    plain = value.replace(b"\r\n", b"\n")
    return value, plain, plain.replace(b"\n", b"\r\n")


def _forms(value: bytes) -> Iterator[bytes]:
    yield value
    yield from _lines(value)
    yield from _base64_forms(value)
    yield from _url_forms(value)
    yield from _quoted_forms(value)


def _lines(value: bytes) -> Iterator[bytes]:
    for raw in value.splitlines():
        line = raw.strip()
        if len(line) >= _MIN_LINE_CHARS and not _PEM_ARMOUR.fullmatch(line):
            yield line


def _base64_forms(value: bytes) -> Iterator[bytes]:
    for text in (value, value + b"\n"):
        for before, unstable in ((0, 0), (1, 2), (2, 3)):
            encoded = base64.b64encode(bytes(before) + text)[unstable:]
            # What comes after the value has a part in the character in which its last bits are.
            stable = encoded[: 8 * (before + len(value)) // 6 - unstable]
            for form in (stable, encoded.rstrip(b"="), encoded):
                yield form
                yield form.translate(bytes.maketrans(b"+/", b"-_"))


def _url_forms(value: bytes) -> Iterator[bytes]:
    # The third is what encodeURIComponent of JavaScript leaves.
    texts = (quote(value), quote(value, safe=""), quote(value, safe="!'()*"), quote_plus(value))
    for text in texts:
        form = text.encode()
        yield form
        yield _URL_ESCAPE.sub(lambda escape: escape[0].lower(), form)


def _quoted_forms(value: bytes) -> Iterator[bytes]:
    yield value.replace(b"'", b"'\\''")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    yield json.dumps(text)[1:-1].encode()
    yield json.dumps(text, ensure_ascii=False)[1:-1].encode()


def _families(forms: set[bytes]) -> list[tuple[bytes, ...]]:
    """Group the forms that begin with another form: one search finds them all.

    In each family the shortest form comes first, the others from the longest down.
    """
    families: list[list[bytes]] = []
    for form in sorted(forms):
        if families and form.startswith(families[-1][0]):
            families[-1].insert(1, form)
        else:
            families.append([form])
    return [(stem, *sorted(longer, key=len, reverse=True)) for stem, *longer in families]


def _heads(families: list[tuple[bytes, ...]]) -> list[tuple[bytes, tuple[bytes, ...], int]]:
    """Group all forms by their first bytes, each group with the length of its longest form."""
    groups: dict[bytes, list[bytes]] = {}
    for family in families:
        for form in family:
            groups.setdefault(form[:MIN_SECRET_CHARS], []).append(form)
    return [(head, tuple(group), max(map(len, group))) for head, group in groups.items()]
