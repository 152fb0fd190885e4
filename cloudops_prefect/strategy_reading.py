"""The order in which a plan file's commands run: its `strategy`, and the `needs` of commands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from cloudops_prefect.mistakes import did_you_mean, shown

if TYPE_CHECKING:
    from cloudops_prefect.findings import Findings
    from cloudops_prefect.mistakes import FieldPath
    from cloudops_prefect.short_forms import Expansion, Fields

_NULLS = frozenset({"null", "Null", "NULL", "~"})
_INDEX = re.compile(r"\d{1,9}", re.ASCII)


def read_strategy(
    written: object, expansions: list[Expansion | None], findings: Findings
) -> object:
    """Return the strategy that a file describes as the fields of its model; None if it has none.

    Args:
        written: What the file has as `strategy`.
        expansions: The commands, whose `needs` become dependencies.
        findings: Takes the mistakes.
    """
    strategy: object = {"type": written} if isinstance(written, str) else written
    fields = _fields_of(strategy)
    names = _Names.of(expansions, findings)
    _find_null_needs(expansions, names, findings)
    if fields is not None:
        _find_names_in_dependencies(fields, names, findings)
    waiting = [expansion for expansion in expansions if expansion and expansion.has_needs]
    if not waiting:
        return strategy
    names.refuse_repeated(expansions, findings)
    needed = _dependencies(expansions, names, findings)
    if strategy is None:
        return {"type": "dependency_graph", "dependencies": needed}
    if fields is None:
        return strategy
    if fields.get("type") in {"serial", "parallel"}:
        message = f"`needs` goes with the strategy dependency_graph, not with {fields['type']}"
        findings.add((*waiting[0].path, "needs"), message, "leave out `strategy`", of_name=True)
    elif fields.get("type") == "dependency_graph":
        return {**fields, "dependencies": _joined(fields.get("dependencies"), needed)}
    return fields


def _fields_of(strategy: object) -> Fields | None:
    return cast("Fields", strategy) if isinstance(strategy, dict) else None


def _joined(written: object, needed: dict[int, list[int]]) -> object:
    if not isinstance(written, dict | None):
        return written
    joined = dict(cast("Fields", written or {}))
    for index, waits_for in needed.items():
        others = joined.get(str(index))
        if others is None:
            joined[str(index)] = waits_for
        elif isinstance(others, list):
            joined[str(index)] = [*cast("list[object]", others), *waits_for]
    return joined


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of a plan's commands, each with the index of the first one that has it."""

    by_index: list[str | None]
    indices: dict[str, int]

    @classmethod
    def of(cls, expansions: list[Expansion | None], findings: Findings) -> _Names:
        by_index = [_name_of(expansion, findings) for expansion in expansions]
        indices: dict[str, int] = {}
        for index, name in enumerate(by_index):
            if name is not None:
                indices.setdefault(name, index)
        return cls(by_index, indices)

    def refuse_repeated(self, expansions: list[Expansion | None], findings: Findings) -> None:
        for index, (name, expansion) in enumerate(zip(self.by_index, expansions, strict=True)):
            if name is None or expansion is None or self.indices[name] == index:
                continue
            message = f"commands[{self.indices[name]}] is named {shown(name)} too"
            findings.add((*expansion.path, "name"), message, "`needs` must tell them apart")

    def __contains__(self, index: int) -> bool:
        return 0 <= index < len(self.by_index)

    def rival_of(self, number: int, written: str | None) -> int | None:
        """Return the command that has a number as its name, unless the number is its index too."""
        named = self.indices.get(str(number), self.indices.get(written or ""))
        return None if named == number else named

    def both_readings(self, number: int, rival: int) -> str:
        """Return what a number means as a name and as an index."""
        return f"it is the name of commands[{rival}], and {self.index_reading(number)}"

    def index_reading(self, number: int) -> str:
        """Return what a number means as an index."""
        if number not in self:
            return f"no command has the index {number} (counted from 0)"
        name = self.by_index[number]
        named = "which has no name" if name is None else f"which is named {shown(name)}"
        return f"the index of commands[{number}] (counted from 0), {named}"


def _name_of(expansion: Expansion | None, findings: Findings) -> str | None:
    if expansion is None:
        return None
    name = expansion.fields.get("name")
    if name is None or isinstance(name, str):
        return name
    # A number can't be a name, but it is meant as one.
    return findings.written((*expansion.path, "name"))


def _find_null_needs(expansions: list[Expansion | None], names: _Names, findings: Findings) -> None:
    """Refuse a null that is a command's name, since it would wait for nothing."""
    if names.indices.keys().isdisjoint(_NULLS):
        return
    for expansion in expansions:
        path = (*expansion.path, "needs") if expansion and not expansion.has_needs else ()
        written = findings.written(path)
        if written in _NULLS and written in names.indices:
            message = f"{shown(written)} is ambiguous: it is a name, and YAML's null"
            findings.add(path, message, f'put the name in quotes: "{written}"')


def _dependencies(
    expansions: list[Expansion | None], names: _Names, findings: Findings
) -> dict[int, list[int]]:
    return {
        index: _waits_for(expansion, names, findings)
        for index, expansion in enumerate(expansions)
        if expansion is not None and expansion.has_needs
    }


def _waits_for(expansion: Expansion, names: _Names, findings: Findings) -> list[int]:
    path = (*expansion.path, "needs")
    needs = expansion.needs
    if not isinstance(needs, list):
        found = _index_of(needs, names, path, findings)
        return [] if found is None else [found]
    items = enumerate(cast("list[object]", needs))
    found = [_index_of(item, names, (*path, position), findings) for position, item in items]
    return [index for index in found if index is not None]


def _index_of(need: object, names: _Names, path: FieldPath, findings: Findings) -> int | None:
    written = findings.written(path)
    if isinstance(need, int) and not isinstance(need, bool):
        return _index_of_number(need, written, names, path, findings)
    if isinstance(need, str):
        return _index_of_name(need, names, path, findings)
    what = shown(need) if written is None else shown(written)
    hint = f'put it in quotes: "{written}"' if written in names.indices else None
    findings.add(path, f"must be the name or the index of a command, not {what}", hint)
    return None


def _index_of_number(
    number: int, written: str | None, names: _Names, path: FieldPath, findings: Findings
) -> int | None:
    rival = names.rival_of(number, written)
    if rival is None:
        return number
    message = f"{shown(written)} is ambiguous: {names.both_readings(number, rival)}"
    hint = f'write the name of the one that you mean in quotes: "{names.by_index[rival]}"'
    if number in names:
        name = names.by_index[number]
        hint += f" or give commands[{number}] a name" if name is None else f' or "{name}"'
    findings.add(path, message, hint)
    return None


def _index_of_name(name: str, names: _Names, path: FieldPath, findings: Findings) -> int | None:
    if name in names.indices:
        return names.indices[name]
    if _INDEX.fullmatch(name) and int(name) in names:
        hint = f"without quotes it is {names.index_reading(int(name))}"
    elif names.indices:
        hint = did_you_mean(name, names.indices)
    else:
        hint = "no command has a `name`"
    findings.add(path, f"no command is named {shown(name)}", hint)
    return None


def _find_names_in_dependencies(strategy: Fields, names: _Names, findings: Findings) -> None:
    """Refuse numbers that are the names of other commands than those whose indices they are."""
    path: FieldPath = ("strategy", "dependencies")
    dependencies = strategy.get("dependencies")
    if not isinstance(dependencies, dict):
        return
    for key, items in cast("Fields", dependencies).items():
        _refuse_name(key, names, (*path, key), findings, of_name=True)
        if isinstance(items, list):
            for position, item in enumerate(cast("list[object]", items)):
                _refuse_name(item, names, (*path, key, position), findings)


def _refuse_name(
    number: object, names: _Names, path: FieldPath, findings: Findings, *, of_name: bool = False
) -> None:
    if not _INDEX.fullmatch(str(number)):
        return
    index = int(str(number))
    rival = names.rival_of(index, str(number))
    if rival is not None:
        message = f"{shown(number)} is ambiguous: {names.both_readings(index, rival)}"
        hint = "write `needs` with names in quotes, or give the commands other names"
        findings.add(path, message, hint, of_name=of_name)
