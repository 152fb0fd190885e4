"""The mistakes of one text, found in any order, with the places where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from cloudops_prefect.json_nodes import compose_json
from cloudops_prefect.mistakes import Mistake, did_you_mean, field_text, shown
from cloudops_prefect.nodes import (
    TextError,
    has_path,
    line_and_column,
    line_at,
    offset_of,
    to_data,
    written_at,
)
from cloudops_prefect.syntax_hints import collection_hint, is_without_colon
from cloudops_prefect.yaml_nodes import compose_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudops_prefect.mistakes import FieldPath
    from cloudops_prefect.nodes import Node, Tree


class Findings:
    """A text as data, and what is wrong with it.

    Args:
        text: YAML or JSON.
        source: The file's name as messages have it; `.json` at its end lets YAML be refused.
    """

    def __init__(self, text: str, source: str) -> None:
        self._text = text.removeprefix("\ufeff")
        self._source = source
        self._mistakes: dict[Mistake, None] = {}
        self._warnings: dict[Mistake, None] = {}
        self._root: Node | None = None
        self._is_json = False
        self.data: object = None
        try:
            self._read()
        except TextError as error:
            self._add_text_error(error)

    @property
    def mistakes(self) -> list[Mistake]:
        """Every mistake once, in the order of the text."""
        return sorted(self._mistakes, key=lambda mistake: (mistake.line, mistake.column))

    @property
    def warnings(self) -> list[Mistake]:
        """What keeps the text from nothing, but may not be meant so, in the order of the text."""
        return sorted(self._warnings, key=lambda warning: (warning.line, warning.column))

    def add(
        self,
        path: FieldPath,
        message: str,
        hint: str | None = None,
        *,
        kind: Literal["missing", "command", "other"] = "other",
        of_name: bool = False,
    ) -> None:
        """Add a mistake in the value at a path, or in its name."""
        offset = offset_of(self._root, path, of_name=of_name) if self._root else 0
        self._add_at(offset, field_text(path), message, hint, kind)

    def warn(self, path: FieldPath, message: str, hint: str) -> None:
        """Add a warning about the value at a path."""
        offset = offset_of(self._root, path) if self._root else 0
        self._warnings.setdefault(self._mistake(offset, field_text(path), message, hint, "other"))

    def add_missing(self, path: FieldPath, hint: str | None = None) -> None:
        """Add that a required field is absent or empty."""
        self.add(path, "required, but missing or empty", hint, kind="missing")

    def add_unknown(self, path: FieldPath, valid: Iterable[str]) -> None:
        """Add that a field isn't known where it stands."""
        name = str(path[-1])
        is_null = self.written(path) == ""
        hint = (self.quoting_hint(path, None) if is_null else None) or did_you_mean(name, valid)
        self.add(path, f"unknown field `{name}`", hint, of_name=True)

    def object(self, otherwise: str) -> dict[str, Any] | None:
        """Return the data if it is an object, else add what it should have been."""
        if isinstance(self.data, dict):
            return cast("dict[str, Any]", self.data)
        if not self._mistakes:
            self.add((), f"{otherwise}; this is {shown(self.data)}")
        return None

    def has(self, path: FieldPath) -> bool:
        """Return whether the text has exactly this path."""
        return self._root is not None and has_path(self._root, path)

    def written(self, path: FieldPath) -> str | None:
        """Return the single value at a path as it is written: `1.10`, where the data has 1.1."""
        return None if self._root is None else written_at(self._root, path)

    def is_cut_short(self, path: FieldPath, text: str) -> bool:
        """Return whether YAML ends a text without quotes at a ` #`."""
        if self._root is None or self._is_json:
            return False
        offset = offset_of(self._root, path)
        behind = self._text[offset + len(text) :]
        return self._text.startswith(text, offset) and behind.lstrip(" \t")[:1] == "#"

    def quoting_hint(self, path: FieldPath, value: object) -> str | None:
        """Return a hint if YAML made more than a text of one that is not in quotes.

        Args:
            path: Where a text belongs.
            value: What is there instead.
        """
        if self._root is None or self._is_json:
            return None
        if isinstance(value, (dict, list)):
            return collection_hint(self._text, offset_of(self._root, path))
        offset = offset_of(self._root, path, of_name=True)
        is_part = value is None and is_without_colon(self._text, offset, str(path[-1]))
        return "put a text with a comma in it in quotes" if is_part else None

    def _read(self) -> None:
        tree = self._tree()
        self._root = tree.root
        for error in tree.repeated:
            self._add_text_error(error)
        if tree.root is None:
            raise TextError(0, "the file is empty")
        self.data = to_data(tree.root)

    def _tree(self) -> Tree:
        if not self._text.lstrip().startswith("{") and not self._source.endswith(".json"):
            return compose_yaml(self._text)
        try:
            tree = compose_json(self._text)
        except TextError as error:
            if self._source.endswith(".json"):
                raise TextError(error.offset, f"not JSON: {error.message}", error.hint) from None
            # YAML has braces too.
            return compose_yaml(self._text)
        self._is_json = True
        return tree

    def _add_text_error(self, error: TextError) -> None:
        self._add_at(error.offset, "", error.message, error.hint, "other")

    def _add_at(
        self,
        offset: int,
        field: str,
        message: str,
        hint: str | None,
        kind: Literal["missing", "command", "other"],
    ) -> None:
        self._mistakes.setdefault(self._mistake(offset, field, message, hint, kind))

    def _mistake(
        self,
        offset: int,
        field: str,
        message: str,
        hint: str | None,
        kind: Literal["missing", "command", "other"],
    ) -> Mistake:
        line, column = line_and_column(self._text, offset)
        text = line_at(self._text, offset)
        return Mistake(self._source, line, column, field, message, hint, kind, text)
