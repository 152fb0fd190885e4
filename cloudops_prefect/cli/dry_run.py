"""What a plan would run on this machine, told without starting anything."""

import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cloudops_prefect.cli import notes, printing
from cloudops_prefect.cli.names import command_names, size_of, title_of
from cloudops_prefect.cli.plan_warnings import api_credentials, print_warnings
from cloudops_prefect.cli.refused import mistake_document
from cloudops_prefect.commands import Invocation, check_working_dir, complete_env, invocation
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import InvalidWorkingDirError, ScriptNotFoundError
from cloudops_prefect.execution import check_paths
from cloudops_prefect.graph import plan_graph
from cloudops_prefect.models import ScriptCommand
from cloudops_prefect.shown import redactor_for

if TYPE_CHECKING:
    from cloudops_prefect.mistakes import Mistake
    from cloudops_prefect.models import ExecutionPlan, ExecutionRequest
    from cloudops_prefect.redaction import Redactor


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

    graph, secrets = plan_graph(plan), api_credentials()
    names = command_names(plan, secrets)
    order: list[int] = [*nx.lexicographical_topological_sort(graph)]
    commands = [
        _planned(plan, index, sorted(graph.predecessors(index)), names[index], config)
        for index in order
    ]
    return [
        _masked(command, redactor_for(config, [plan.commands[command.index]], secrets))
        for command in commands
    ]


def dry_run(plan: "ExecutionPlan", warnings: "Sequence[Mistake]", *, json: bool) -> None:
    """Print what a plan would run.

    Args:
        plan: The plan.
        warnings: What its file may not mean as it is written.
        json: Whether to print JSON.
    """
    config = ExecutionConfig.load()
    commands, note = planned(plan, config), notes.concurrency(plan, config)
    title = title_of(plan, api_credentials())
    if json:
        documents = [*map(mistake_document, warnings)]
        printing.json_document(
            {"plan": title, "note": note, "warnings": documents, "commands": commands}
        )
        return
    print_warnings(warnings)
    printing.line(f"{title}: {size_of(plan)}; nothing is started")
    if note:
        printing.line(f"note: {note}")
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
    note = _missing_directory(request) or note
    return PlannedCommand(
        index=index,
        name=name,
        after=after,
        argv=[*call.argv],
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
        return Invocation((error.path, *request.command.args)), "the script is not there yet"


def _missing_directory(request: "ExecutionRequest") -> str | None:
    if request.working_dir is None:
        return None
    try:
        check_working_dir(request.working_dir)
    except InvalidWorkingDirError:
        # Only what an earlier command may still make gets here.
        return "the directory is not there yet"
    return None


def _missing_program(call: Invocation, request: "ExecutionRequest") -> str | None:
    program = call.argv[0]
    path = complete_env(call, request.env).get("PATH")
    if "/" in program:
        found = ((request.working_dir or Path()) / program).exists()
    else:
        found = shutil.which(program, path=path) is not None
    return None if found else f"there is no program {program} here"


def _masked(command: PlannedCommand, redactor: "Redactor") -> PlannedCommand:
    return replace(
        command,
        argv=[*map(redactor.text, command.argv)],
        working_dir=Path(redactor.text(str(command.working_dir))),
        env=[*map(redactor.text, command.env)],
        env_from=[*map(redactor.text, command.env_from)],
        note=command.note and redactor.text(command.note),
    )


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
