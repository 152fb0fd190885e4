"""The order in which a plan file's commands run: its `strategy`, and the `needs` of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from cloudops_prefect.mistakes import did_you_mean, shown

if TYPE_CHECKING:
    from cloudops_prefect.findings import Findings
    from cloudops_prefect.mistakes import FieldPath
    from cloudops_prefect.short_forms import Expansion, Fields


def read_strategy(
    written: object, expansions: list[Expansion | None], findings: Findings
) -> object:
    """Return the strategy that a file describes as the fields of its model.

    Args:
        written: What the file has as `strategy`.
        expansions: The commands, whose `needs` become dependencies.
        findings: Takes the mistakes.
    """
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
