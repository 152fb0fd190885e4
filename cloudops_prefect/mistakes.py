"""What is wrong in a file, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from cloudops_prefect.errors import (
    InvalidCommandError,
    InvalidPlanError,
    MissingFieldError,
    ValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    FieldPath = tuple[str | int, ...]

_SHOWN_CHARACTERS = 60
_SHOWN_NAMES = 25
_SHOWN_MISTAKES = 20
_TAB = 4
_SIMILAR = 0.75
_SHORT_NAME = 3
_SIMILAR_IF_SHORT = 0.66


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int
    field: str
    message: str
    hint: str | None = None
    kind: Literal["missing", "command", "other"] = "other"
    text: str = ""

    @property
    def place(self) -> str:
        """`file:line:column`, as compilers write it."""
        return f"{self.file}:{self.line}:{self.column}"

    @property
    def excerpt(self) -> list[str]:
        """What stands at the place, and below it a mark; nothing where the field says enough."""
        if self.field or not self.text.strip():
            return []
        at = self.column - 1
        before = _visible(self.text[:at][-_SHOWN_CHARACTERS:])
        after = _visible(self.text[at : at + _SHOWN_CHARACTERS])
        return [before + after, " " * len(before) + "^"]

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.place}: {field}{self.message}{hint}"


def error_of(
    mistakes: Sequence[Mistake], general: type[ValidationError] = InvalidPlanError
) -> ValidationError:
    """Return the error for a file's mistakes: the fitting one for one, else one that lists all."""
    if len(mistakes) == 1:
        error = _error_of_one(mistakes[0], general)
    else:
        error = general(_listed(mistakes))
    error.mistakes = tuple(mistakes)
    return error


def _error_of_one(mistake: Mistake, general: type[ValidationError]) -> ValidationError:
    if mistake.kind == "missing":
        where = f"{mistake.place}; {mistake.hint}" if mistake.hint else mistake.place
        return MissingFieldError(mistake.field).located(where)
    if mistake.kind == "command":
        return InvalidCommandError(str(mistake))
    return general(str(mistake))


def _listed(mistakes: Sequence[Mistake]) -> str:
    lines = [f"\n  {mistake}" for mistake in mistakes[:_SHOWN_MISTAKES]]
    if len(mistakes) > _SHOWN_MISTAKES:
        lines.append(f"\n  and {len(mistakes) - _SHOWN_MISTAKES} more")
    return f"{len(mistakes)} mistakes{''.join(lines)}"


def _visible(text: str) -> str:
    spaced = text.expandtabs(_TAB)
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in spaced)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that was probably meant."""
    lowered = {candidate.lower().replace("-", "_"): candidate for candidate in valid}
    # Of three letters one is a third.
    cutoff = _SIMILAR if len(name) > _SHORT_NAME else _SIMILAR_IF_SHORT
    near = get_close_matches(name.lower().replace("-", "_"), lowered, n=1, cutoff=cutoff)
    return lowered[near[0]] if near else None


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return a hint: the nearest valid name, or some of them if none is near."""
    names = list(valid)
    near = nearest(name, names)
    if near is not None:
        return f"did you mean `{near}`?"
    more = ", …" if len(names) > _SHOWN_NAMES else ""
    return f"known here: {', '.join(names[:_SHOWN_NAMES])}{more}" if names else "none is known here"


def field_text(path: FieldPath) -> str:
    """Write a path as it is written in code: `commands[2].timeout_ms`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def shown(value: object) -> str:
    """Quote a value of a file, cut to what fits into a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return f"`{text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + '…'}`"
