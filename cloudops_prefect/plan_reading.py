"""A plan file as an `ExecutionPlan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from cloudops_prefect import shapes
from cloudops_prefect.graph import graph_errors
from cloudops_prefect.mistakes import did_you_mean, nearest, shown
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.request_reading import STAND_IN, message_at, read_request
from cloudops_prefect.short_forms import KNOWN_FIELDS, Expansion, Fields, expand, hint_of, plain
from cloudops_prefect.wrong_types import checked, path_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.findings import Findings
    from cloudops_prefect.mistakes import FieldPath

_FIELDS = tuple(ExecutionPlan.model_fields)
_STRATEGY = "write `strategy: {type: parallel, max_concurrency: …}`"
_HINTS = {
    "concurrency": _STRATEGY,
    "jobs": "did you mean `commands`?",
    "max_concurrency": _STRATEGY,
    "max_parallel": _STRATEGY,
    "name": "a plan has a `description`",
    "parallel": "write `strategy: parallel`",
    "steps": "did you mean `commands`?",
    "tasks": "did you mean `commands`?",
    "title": "a plan has a `description`",
}
_NO_COMMANDS = "a plan must be an object with a list of `commands`"


def read_plan(findings: Findings, config: ExecutionConfig | None) -> ExecutionPlan:
    """Return the plan that a file describes, or any plan if it can't be read."""
    stand_in = ExecutionPlan(commands=[STAND_IN])
    file = findings.object(_NO_COMMANDS)
    if file is None:
        return stand_in
    expansions = _expand_all(file, findings)
    fields = {name: file[name] for name in _FIELDS if name in file}
    fields["commands"] = [
        STAND_IN if expansion is None else read_request(expansion, findings, config)
        for expansion in expansions
    ]
    if "strategy" in file or any(expansion and expansion.has_needs for expansion in expansions):
        fields["strategy"] = _strategy(file.get("strategy"), expansions, findings)
    plan = checked(ExecutionPlan, fields, findings, _place_in(file))
    if isinstance(file.get("commands"), list):
        _find_graph_errors(plan or stand_in, findings)
    if plan is not None:
        for error in shapes.env_from_errors(plan.env_from):
            path = path_of(error.field or "")
            findings.add(path, message_at(path, error))
    return plan or stand_in


def _expand_all(file: Fields, findings: Findings) -> list[Expansion | None]:
    unknown = [name for name in file if name not in _FIELDS and not _is_aside(name)]
    for name in unknown:
        _add_unknown(name, findings)
    entries = file.get("commands")
    if isinstance(entries, list):
        return [
            _expand_one(entry, ("commands", index), findings)
            for index, entry in enumerate(cast("list[object]", entries))
        ]
    if entries is not None:
        findings.add(("commands",), f"must be a list, not {shown(entries)}")
    elif not any(_is_meant_as_commands(name) for name in unknown):
        findings.add_missing(("commands",))
    return [None]


def _add_unknown(name: str, findings: Findings) -> None:
    hint = _HINTS.get(plain(name)) or hint_of(name)
    if hint is None and name in KNOWN_FIELDS:
        hint = f"indent it under its command; {did_you_mean(name, _FIELDS)}"
    if hint is not None:
        findings.add((name,), f"unknown field `{name}`", hint, of_name=True)
    else:
        findings.add_unknown((name,), _FIELDS)


def _is_meant_as_commands(name: str) -> bool:
    return "`commands`" in _HINTS.get(plain(name), "") or nearest(name, _FIELDS) == "commands"


def _is_aside(name: str) -> bool:
    """Tell names that are no fields: the editor's schema, and what anchors are kept under."""
    return name == "$schema" or name.startswith("x-")


def _expand_one(entry: object, path: FieldPath, findings: Findings) -> Expansion | None:
    if isinstance(entry, dict):
        return expand(cast("Fields", entry), path, findings)
    hint = f"write `run: {entry}`" if isinstance(entry, str) and entry.isprintable() else None
    findings.add(path, f"a command must be an object, not {shown(entry)}", hint)
    return None


def _strategy(written: object, expansions: list[Expansion | None], findings: Findings) -> object:
    strategy: object = {"type": written} if isinstance(written, str) else written
    waiting = [expansion for expansion in expansions if expansion and expansion.has_needs]
    if not waiting:
        return strategy
    needed = _dependencies(expansions, findings)
    if strategy is None:
        return {"type": "dependency_graph", "dependencies": needed}
    if not isinstance(strategy, dict):
        return strategy
    fields = cast("Fields", strategy)
    if fields.get("type") in {"serial", "parallel"}:
        message = f"`needs` goes with the strategy dependency_graph, not with {fields['type']}"
        findings.add((*waiting[0].path, "needs"), message, "leave out `strategy`", of_name=True)
    elif fields.get("type") == "dependency_graph":
        return {**fields, "dependencies": _joined(fields.get("dependencies", {}), needed)}
    return fields


def _joined(written: object, needed: dict[int, list[int]]) -> object:
    if not isinstance(written, dict):
        return written
    joined = dict(cast("Fields", written))
    for index, waits_for in needed.items():
        others = joined.get(str(index), [])
        if isinstance(others, list):
            joined[str(index)] = [*cast("list[object]", others), *waits_for]
    return joined


def _dependencies(expansions: list[Expansion | None], findings: Findings) -> dict[int, list[int]]:
    names = _indices_by_name(expansions, findings)
    dependencies: dict[int, list[int]] = {}
    for index, expansion in enumerate(expansions):
        if expansion is not None and expansion.has_needs:
            dependencies[index] = _waits_for(expansion, names, findings)
    return dependencies


def _indices_by_name(expansions: list[Expansion | None], findings: Findings) -> dict[str, int]:
    names: dict[str, int] = {}
    for index, expansion in enumerate(expansions):
        name = expansion.fields.get("name") if expansion else None
        if expansion is None or not isinstance(name, str):
            continue
        if name in names:
            message = f"commands[{names[name]}] is named {shown(name)} too"
            findings.add((*expansion.path, "name"), message, "`needs` must tell them apart")
        names.setdefault(name, index)
    return names


def _waits_for(expansion: Expansion, names: dict[str, int], findings: Findings) -> list[int]:
    path = (*expansion.path, "needs")
    needs = expansion.needs
    if not isinstance(needs, list):
        found = _index_of(needs, names, path, findings)
        return [] if found is None else [found]
    items = enumerate(cast("list[object]", needs))
    found = [_index_of(item, names, (*path, position), findings) for position, item in items]
    return [index for index in found if index is not None]


def _index_of(
    need: object, names: dict[str, int], path: FieldPath, findings: Findings
) -> int | None:
    if isinstance(need, int) and not isinstance(need, bool):
        return need
    if not isinstance(need, str):
        message = f"must be the name or the index of a command, not {shown(need)}"
        findings.add(path, message)
    elif need in names:
        return names[need]
    else:
        hint = did_you_mean(need, names) if names else "no command has a `name`"
        findings.add(path, f"no command is named {shown(need)}", hint)
    return None


def _place_in(file: Fields) -> Callable[[FieldPath], FieldPath]:
    def place_of(path: FieldPath) -> FieldPath:
        if path == ("strategy", "type") and not isinstance(file.get("strategy"), dict):
            return ("strategy",)
        return path

    return place_of


def _find_graph_errors(plan: ExecutionPlan, findings: Findings) -> None:
    for error in graph_errors(plan):
        path = path_of(error.field or "")
        if path[:2] == ("strategy", "dependencies"):
            needs = ("commands", path[2], "needs")
            named = ("strategy", "dependencies", str(path[2]))
            path = needs if findings.has(needs) else named
        findings.add(path, error.detail)
