"""A plan file as an `ExecutionPlan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from cloudops_prefect import shapes
from cloudops_prefect.graph import graph_errors
from cloudops_prefect.mistakes import did_you_mean, nearest, shown
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.plan_warnings import find_warnings
from cloudops_prefect.request_reading import STAND_IN, message_at, read_request
from cloudops_prefect.short_forms import KNOWN_FIELDS, Expansion, Fields, expand, hint_of, plain
from cloudops_prefect.strategy_reading import read_strategy
from cloudops_prefect.syntax_hints import joined_key
from cloudops_prefect.wrong_types import checked, path_of, present

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
    file = present(file, _FIELDS)
    expansions = _expand_all(file, findings)
    fields = {name: file[name] for name in _FIELDS if name in file}
    fields["commands"] = [
        STAND_IN if expansion is None else read_request(expansion, findings, config)
        for expansion in expansions
    ]
    fields["strategy"] = read_strategy(file.get("strategy"), expansions, findings)
    plan = checked(ExecutionPlan, fields, findings, _place_in(file))
    if isinstance(file.get("commands"), list):
        _find_graph_errors(plan or stand_in, findings)
    if plan is not None:
        for error in shapes.env_from_errors(plan.env_from):
            path = path_of(error.field or "")
            findings.add(path, message_at(path, error))
    if not findings.mistakes:
        find_warnings(file, findings, config.redact_env if config else ())
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
    hint = _hint_for_text(entry) if isinstance(entry, str) and entry.isprintable() else None
    findings.add(path, f"a command must be an object, not {shown(entry)}", hint)
    return None


def _hint_for_text(entry: str) -> str:
    key = joined_key(entry)
    return f"write a space behind `{key}:`" if key in KNOWN_FIELDS else f"write `run: {entry}`"


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
