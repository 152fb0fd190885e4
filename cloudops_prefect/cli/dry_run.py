"""What a plan would run on this machine, told without starting anything."""

import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing
from cloudops_prefect.cli.names import command_names, size_of, title_of
from cloudops_prefect.commands import Invocation, complete_env, invocation
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import ScriptNotFoundError
from cloudops_prefect.execution import check_paths, redactor_for
from cloudops_prefect.graph import plan_graph
from cloudops_prefect.models import ScriptCommand

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionPlan, ExecutionRequest


@dataclass(frozen=True, slots=True)
class PlannedCommand:
    """One command as it would be started; `after` has the indices of those it waits for."""

    index: int
    name: str
    after: list[int]
    argv: list[str]
    working_dir: Path
    env: list[str]
    env_from: list[str]
    timeout_ms: int
    note: str | None


def planned(plan: "ExecutionPlan", config: ExecutionConfig) -> list[PlannedCommand]:
    """Returns the commands of a plan in an order in which they could run.

    Raises:
        ValidationError: A path is missing that has to be there when the plan begins.
    """
    import networkx as nx

    graph, names = plan_graph(plan), command_names(plan)
    order: list[int] = [*nx.lexicographical_topological_sort(graph)]
    return [
        _planned(plan, index, sorted(graph.predecessors(index)), names[index], config)
        for index in order
    ]


def dry_run(plan: "ExecutionPlan", *, json: bool) -> None:
    """Prints what a plan would run."""
    commands = planned(plan, ExecutionConfig.load())
    if json:
        printing.json_document({"plan": title_of(plan), "commands": commands})
        return
    printing.line(f"{title_of(plan)}: {size_of(plan)}; nothing is started")
    names = {command.index: command.name for command in commands}
    for position, command in enumerate(commands, 1):
        printing.line("")
        for text in _lines(position, command, names):
            printing.line(text)


def _planned(
    plan: "ExecutionPlan", index: int, after: list[int], name: str, config: ExecutionConfig
) -> PlannedCommand:
    request = plan.commands[index]
    check_paths(request, later=bool(after))
    env_from = [*dict.fromkeys([*plan.env_from, *request.env_from])]
    call, note = _invocation(request)
    return PlannedCommand(
        index=index,
        name=name,
        after=after,
        argv=_masked(call.argv, request, config),
        working_dir=(request.working_dir or Path()).absolute(),
        env=sorted({*request.env, *call.env}),
        env_from=env_from,
        timeout_ms=request.effective_timeout_ms(config),
        # What blocks bring may hold the PATH in which the program is.
        note=note if note or env_from else _missing_program(call, request),
    )


def _invocation(request: "ExecutionRequest") -> tuple[Invocation, str | None]:
    try:
        return invocation(request.command, request.env, request.working_dir), None
    except ScriptNotFoundError as error:
        # Only what an earlier command may still make gets here.
        assert isinstance(request.command, ScriptCommand)  # noqa: S101
        return Invocation((error.path,)), "the script is not there yet"


def _missing_program(call: Invocation, request: "ExecutionRequest") -> str | None:
    program = call.argv[0]
    path = complete_env(call, request.env).get("PATH")
    if "/" in program:
        found = ((request.working_dir or Path()) / program).exists()
    else:
        found = shutil.which(program, path=path) is not None
    return None if found else f"there is no program {program} here"


def _masked(argv: Sequence[str], request: "ExecutionRequest", config: ExecutionConfig) -> list[str]:
    redactor = redactor_for(config, [request.env])
    return [redactor.text(word) for word in argv]


def _lines(position: int, command: PlannedCommand, names: dict[int, str]) -> Iterator[str]:
    after = ", ".join(names[index] for index in command.after)
    yield f"{position:>3}. {command.name}" + (f"  (after {after})" if after else "")
    first, *more = _printable(shlex.join(command.argv)).split("\n")
    yield f"     runs     {first}"
    yield from (f"              {text}" for text in more)
    limit = printing.seconds(timedelta(milliseconds=command.timeout_ms))
    facts = {
        "in": str(command.working_dir),
        "env": ", ".join(command.env),
        "blocks": ", ".join(command.env_from),
        "timeout": limit,
        "note": command.note or "",
    }
    yield from (f"     {name:<8} {_printable(value)}" for name, value in facts.items() if value)


def _printable(text: str) -> str:
    return "".join(
        letter if letter == "\n" or letter.isprintable() else ascii(letter)[1:-1] for letter in text
    )
