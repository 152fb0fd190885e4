"""JSON as a tree of nodes.

YAML would read nearly all JSON, but not the surrogate pairs with which JSON writes an emoji.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType] (typeshed leaves it out)
from typing import TYPE_CHECKING, cast

from cloudops_prefect.nodes import (
    MAX_DEPTH,
    Listing,
    Mapping,
    Node,
    RepeatedNameError,
    Scalar,
    TextError,
    Tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_scan_string = cast("Callable[[str, int], tuple[str, int]]", scanstring)
_SPACE = re.compile(r"[ \t\r\n]*")
_ATOM = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null", re.ASCII)


def compose_json(text: str) -> Tree:
    """Return a JSON text as a tree.

    Raises:
        TextError: The text isn't JSON.
    """
    reader = _Reader(text)
    node = reader.value(depth=1)
    if reader.position < len(text):
        raise TextError(reader.position, "there is something after the end of the JSON value")
    return Tree(node, reader.repeated)


class _Reader:
    """Reads a text from `position` on, which never stands on white space."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.position = 0
        self.repeated: list[RepeatedNameError] = []
        self._skip_space()

    def value(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise TextError(self.position, "nested too deeply")
        start = self.position
        match self._text[start : start + 1]:
            case "{":
                return self._object(depth)
            case "[":
                return self._array(depth)
            case '"':
                text = self._string()
                return Scalar(start, text, text)
            case _:
                return self._atom()

    def _object(self, depth: int) -> Mapping:
        mapping = Mapping(self.position)
        self._take("{")
        if self._taken("}"):
            return mapping
        while True:
            key_offset = self.position
            key = self._string()
            self._take(":")
            value = self.value(depth + 1)
            try:
                mapping.add(key_offset, key, value)
            except RepeatedNameError as error:
                self.repeated.append(error)
            if self._taken("}"):
                return mapping
            self._take(",", or_end="}")

    def _array(self, depth: int) -> Listing:
        listing = Listing(self.position)
        self._take("[")
        if self._taken("]"):
            return listing
        while True:
            listing.add(self.value(depth + 1))
            if self._taken("]"):
                return listing
            self._take(",", or_end="]")

    def _string(self) -> str:
        if self._text[self.position : self.position + 1] != '"':
            raise TextError(self.position, 'expected a text in double quotes, like "name"')
        try:
            value, self.position = _scan_string(self._text, self.position + 1)
        except json.JSONDecodeError as error:
            raise TextError(error.pos, error.msg) from None
        self._skip_space()
        return value

    def _atom(self) -> Scalar:
        start = self.position
        atom = _ATOM.match(self._text, start)
        if not atom:
            raise TextError(start, "expected a JSON value")
        self.position = atom.end()
        self._skip_space()
        try:
            return Scalar(start, atom[0], json.loads(atom[0]))
        except ValueError:
            raise TextError(start, "the number is too long") from None

    def _taken(self, character: str) -> bool:
        if not self._text.startswith(character, self.position):
            return False
        self.position += 1
        self._skip_space()
        return True

    def _take(self, character: str, or_end: str | None = None) -> None:
        if not self._taken(character):
            ends = f" or `{or_end}`" if or_end else ""
            raise TextError(self.position, f"expected `{character}`{ends}")

    def _skip_space(self) -> None:
        if self._text[self.position : self.position + 1].isspace():
            space = _SPACE.match(self._text, self.position)
            self.position = space.end() if space else self.position
