"""Hints for texts that aren't YAML. Most of them are commands that YAML can only read in quotes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloudops_prefect.nodes import line_and_column, line_at

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_QUOTES = "put the text in quotes"
WHOLE_IN_QUOTES = "put the whole text in quotes"
NO_ALIAS = f"{IN_QUOTES}, unless it is meant as an alias"
NO_TAG = "put a text that begins with `!` in quotes"

_LINE = re.compile(r"\s*(?:-\s+)*(?:(?P<key>[\w.-]+)\s*:\s+)?(?P<value>.*)")
_JOINED_KEY = re.compile(r"\s*(?:-\s+)*([A-Za-z_]+):\S")
_COLON = re.compile(r":(?:\s|$)")
_TEXT_FIELDS = frozenset({"run", "name", "description", "working_dir", "interpreter", "shell"})
_COLLECTION_FIELDS = frozenset(
    {"commands", "dependencies", "env", "env_from", "metadata", "strategy", "tags"}
)
_ITEM = re.compile(r"\{\{[^{}\n]*\}\}|[@`%*&!|>][^\s,\]}]*")
_OPENING, _CLOSING = "[{", "]}"
_QUOTES = "\"'"
# None of these can begin a text without quotes; nor can `:`, `?` and `-`, if a space follows.
_INDICATORS = "@`%*&!|>,]}"
_SHOWN_CHARACTERS = 50
_ELSEWHERE = "look at the indentation and the quotes of this line and the one before"


def syntax_hint(text: str, offset: int, problem: str, begun_at: int | None) -> str:
    """Return what may be wrong in a text that the YAML parser refuses.

    Args:
        text: The whole text.
        offset: Where the parser stopped.
        problem: What it calls the error.
        begun_at: The offset of the value that it was reading, if it names one.
    """
    hints = (
        _tab_hint(text, offset),
        _unfinished_hint(text, offset, problem, begun_at),
        _missing_space_hint(text, offset, problem),
        _value_hint(text, offset),
    )
    return next((hint for hint in hints if hint is not None), _ELSEWHERE)


def bracket_hint(text: str, offset: int) -> str | None:
    """Return a hint for a bracket that begins an object or a list where a name belongs."""
    if text[offset - 1 : offset] not in set(_OPENING):
        return None
    return _value_hint(text, offset - 1) or IN_QUOTES


def collection_hint(text: str, offset: int) -> str:
    """Return a hint for an object or a list that is in the place of a text."""
    if text[offset : offset + 1] in set(_OPENING):
        return f"{IN_QUOTES}: YAML reads `{text[offset]}` as the beginning of more than a text"
    return "put a text with `: ` in it in quotes"


def is_without_colon(text: str, offset: int, name: str) -> bool:
    """Tell a name that nothing follows: `b` in `{run: a, b}`."""
    behind = text[offset + len(name) :].lstrip(" ")
    return text.startswith(name, offset) and behind[:1] in {",", "}"}


def joined_key(text: str) -> str | None:
    """Return the field's name if a text is a field without a space behind its colon: `run:x`."""
    joined = _JOINED_KEY.match(text)
    return joined[1] if joined else None


def _tab_hint(text: str, offset: int) -> str | None:
    line = line_at(text, offset)
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent or text[offset : offset + 1] == "\t":
        return "indent with spaces, not with tabs"
    return None


def _unfinished_hint(text: str, offset: int, problem: str, begun_at: int | None) -> str | None:
    if "escape" in problem:
        return "in double quotes `\\` begins an escape: write `\\\\`, or use single quotes"
    if begun_at is None:
        return None
    line, column = line_and_column(text, begun_at)
    if "end of stream" in problem:
        where = f"the one in line {line}, column {column} is never closed"
        return f"look at the indentation and the quotes: {where}"
    is_flow = text[begun_at : begun_at + 1] in set(_OPENING)
    if is_flow and "\n" in text[begun_at:offset].rstrip():
        bracket = text[begun_at]
        return f"close the `{bracket}` in line {line}, column {column}, or put the text in quotes"
    return None


def _missing_space_hint(text: str, offset: int, problem: str) -> str | None:
    line_start = text.rfind("\n", 0, offset) + 1
    before = line_at(text, line_start - 1) if line_start else ""
    key = joined_key(before) if "mapping values" in problem else None
    return f"write a space behind `{key}:` in the line before" if key else None


def _value_hint(text: str, offset: int) -> str | None:
    """Return a hint for the value on the line, if the parser stopped within it."""
    match = _LINE.match(line_at(text, offset))
    at = offset - (text.rfind("\n", 0, offset) + 1)
    if match is None or not match["value"].strip() or at < match.start("value"):
        return None
    key, value = match["key"], match["value"].strip()
    read = value[: at - match.start("value")]
    if value[0] in _OPENING:
        return _flow_hint(key, value, read)
    if value[0] in _QUOTES:
        return _quoting(key, value, WHOLE_IN_QUOTES) if read else None
    return _plain_hint(key, value)


def _plain_hint(key: str | None, value: str) -> str | None:
    if value[0] == "-" and key in _COLLECTION_FIELDS:
        return "begin a list on the next line"
    if value[0] in _INDICATORS or re.match(r"[:?-](?:\s|$)", value):
        return _quoting(key, value, IN_QUOTES)
    if _COLON.search(value):
        return _quoting(key, value, "put a text with `: ` in it in quotes")
    return None


def _flow_hint(key: str | None, value: str, read: str) -> str:
    """Return a hint for a text that begins as a list or an object in brackets."""
    if key in _TEXT_FIELDS or value.startswith("{{") or any(_ends_in(read)):
        return _quoting(key, value, IN_QUOTES)
    if "${{" in value:
        return "put a text with `${{ }}` in quotes"
    if read.rstrip()[-1:] in set(_QUOTES):
        return WHOLE_IN_QUOTES
    item = _ITEM.match(value, len(read))
    if item is None or read[-1:] not in {"[", "{", ",", " "}:
        return "put a text with `: `, `,`, a bracket or a brace in it in quotes"
    return IN_QUOTES if "'" in item[0] else f"{IN_QUOTES}, like `'{item[0]}'`"


def _ends_in(read: str) -> Iterator[bool]:
    """Yield for each bracket whether the one that begins the text is closed there."""
    depth = 0
    for character in read:
        depth += (character in _OPENING) - (character in _CLOSING)
        if character in _CLOSING:
            yield depth == 0


def _quoting(key: str | None, value: str, hint: str) -> str:
    """Add to a hint how the line would look, if that is short and sure."""
    is_sure = key is not None and key not in _COLLECTION_FIELDS and not re.search("'| #", value)
    if not is_sure or len(value) > _SHOWN_CHARACTERS:
        return hint
    return f"{hint}, like `{key}: '{value}'`"
