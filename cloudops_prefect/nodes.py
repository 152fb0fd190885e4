"""A text of nested values as a tree that knows where in the text each value stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudops_prefect.mistakes import FieldPath

# More than any plan has, and few enough for recursive functions. A nesting of some 50 000 brackets
# makes the composer of libyaml's binding overflow the C stack, so trees are not built by it.
MAX_DEPTH = 100

_LITERAL_FIELDS = frozenset({"env", "tags", "args", "exec", "aws", "run", "script"})


class TextError(Exception):
    """The text isn't what its format asks for, at an offset in characters."""

    def __init__(self, offset: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.hint = hint


class RepeatedNameError(TextError):
    """A mapping has a name that it has already; the rest of the text can still be read."""


@dataclass(slots=True)
class Tree:
    """A text's values, or nothing for an empty text, and the names that are there twice."""

    root: Node | None
    repeated: list[RepeatedNameError]


@dataclass(slots=True)
class Scalar:
    """A single value, as it is written and as it is meant."""

    offset: int
    text: str
    value: object


@dataclass(slots=True)
class Listing:
    """Values in an order."""

    offset: int
    items: list[Node] = field(default_factory=list["Node"])
    height: int = 1

    def add(self, node: Node) -> None:
        """Append a value."""
        self.items.append(node)
        self.height = max(self.height, _height_above(node))


@dataclass(slots=True)
class Mapping:
    """Values by name, each with the offset of its name."""

    offset: int
    entries: dict[str, tuple[int, Node]] = field(default_factory=dict[str, tuple[int, "Node"]])
    height: int = 1

    def add(self, key_offset: int, key: str, node: Node) -> None:
        """Set the value of a name that must be new.

        Raises:
            RepeatedNameError: The name is there already; the first value stays.
        """
        if key in self.entries:
            raise RepeatedNameError(key_offset, f"`{key}` is there twice; keep one of them")
        self.entries[key] = key_offset, node
        self.height = max(self.height, _height_above(node))

    def merge(self, other: Mapping) -> None:
        """Take over what this mapping doesn't say itself."""
        for key, entry in other.entries.items():
            self.entries.setdefault(key, entry)
        self.height = max(self.height, other.height)


Node = Scalar | Listing | Mapping


def _height_above(node: Node) -> int:
    height = 1 if isinstance(node, Scalar) else node.height + 1
    if height > MAX_DEPTH:
        raise TextError(node.offset, "nested too deeply")
    return height


def to_data(node: Node) -> object:
    """Return a tree as lists, dicts and single values.

    Where the fields of a plan hold text that people write without quotes (arguments, variables,
    tags), a number or a truth value stays as it is written: `PORT: 010` is the text `010`.
    """
    return _Conversion().data(node, literal=False)


class _Conversion:
    """Converts a node that aliases refer to many times only once."""

    def __init__(self) -> None:
        self._done: dict[tuple[int, bool], object] = {}

    def data(self, node: Node, *, literal: bool) -> object:
        if isinstance(node, Scalar):
            return node.value if not literal or node.value is None else node.text
        key = id(node), literal
        if key not in self._done:
            self._done[key] = self._collection(node, literal=literal)
        return self._done[key]

    def _collection(self, node: Listing | Mapping, *, literal: bool) -> object:
        if isinstance(node, Listing):
            return [self.data(item, literal=literal) for item in node.items]
        return {
            name: self.data(item, literal=literal or name in _LITERAL_FIELDS)
            for name, (_, item) in node.entries.items()
        }


def offset_of(root: Node, path: FieldPath, *, of_name: bool = False) -> int:
    """Return the offset of the value at a path, or of the nearest value above it.

    Args:
        root: The tree.
        path: Names and indices from the root.
        of_name: Take the offset of the last name instead of its value's.
    """
    offset = root.offset
    for name_offset, node in _steps(root, path):
        offset = name_offset if of_name else node.offset
    return offset


def has_path(root: Node, path: FieldPath) -> bool:
    """Return whether there is a value at a path."""
    return len(list(_steps(root, path))) == len(path)


def written_at(root: Node, path: FieldPath) -> str | None:
    """Return the single value at a path as it is written, without quotes; None if there is none."""
    nodes = [node for _, node in _steps(root, path)]
    last = nodes[-1] if nodes else root
    return last.text if len(nodes) == len(path) and isinstance(last, Scalar) else None


def _steps(node: Node, path: FieldPath) -> Iterator[tuple[int, Node]]:
    for part in path:
        if isinstance(node, Mapping) and part in node.entries:
            name_offset, node = node.entries[str(part)]
        elif isinstance(node, Listing) and isinstance(part, int) and 0 <= part < len(node.items):
            node = node.items[part]
            name_offset = node.offset
        else:
            return
        yield name_offset, node


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Return the place of an offset as editors count it, from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def line_at(text: str, offset: int) -> str:
    """Return the line that an offset is in."""
    begin = text.rfind("\n", 0, offset) + 1
    return text[begin:].partition("\n")[0].removesuffix("\r")
