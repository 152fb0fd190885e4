"""What is said of a plan though it may run: where it will not do what its file seems to say."""

import os
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing
from cloudops_prefect.cli.plain_text import printable
from cloudops_prefect.models import ExecCommand, ParallelStrategy, ScriptCommand
from cloudops_prefect.parameters import has_plan
from cloudops_prefect.run_origin import RunOrigin, current_directory
from cloudops_prefect.shown import redactor_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.history import Execution
    from cloudops_prefect.models import ExecutionPlan, ExecutionRequest

_SHOWN_PATHS = 20


@dataclass(frozen=True, slots=True)
class RelativePath:
    """A path that starts wherever the process starts that runs the command."""

    index: int
    text: str


def say(note: str) -> None:
    """Prints a note beside what is printed."""
    printing.error_line(f"note: {note}")


def say_what_is_resumed(execution: "Execution", *, quiet: bool) -> None:
    """Say where a resumed run continues, and that the plan's file has changed if it has.

    Args:
        execution: The run as it was before the resume.
        quiet: Whether only the change is said.
    """
    origin = RunOrigin.of_run(execution.flow_run)
    if not quiet:
        what = "plan" if has_plan(execution.flow_run) else "command"
        where = f", in {shown_path(origin.directory)}" if origin.directory else ""
        say(f"the {what} runs as it was started{where}")
    if changed := origin.changed_plan_file():
        again = _run_command(changed, origin.directory)
        say(f"{shown_path(changed)} has changed since; to run it as it is now: {again}")


def _run_command(plan_file: Path, directory: Path | None) -> str:
    run = f"cloudops run {quote(shown_path(plan_file))}"
    if directory is None or directory == current_directory():
        return run
    return f"cd {quote(shown_path(directory))} && {run}"


def shown_path(path: Path) -> str:
    """Return a path as text that can be printed."""
    return printable(os.fsencode(path).decode(errors="replace"))


def concurrency(plan: "ExecutionPlan", config: "ExecutionConfig") -> str | None:
    """Says that fewer commands will run at once than a plan allows, if that is so."""
    strategy, most = plan.strategy, config.max_concurrent_executions
    asked = strategy.max_concurrency if isinstance(strategy, ParallelStrategy) else None
    if asked is None or min(asked, len(plan.commands)) <= most:
        return None
    return (
        f"max_concurrency {asked}: at most {most} at once here; "
        "CLOUDOPS_MAX_CONCURRENT_EXECUTIONS raises that"
    )


def relative_paths(
    plan: "ExecutionPlan", config: "ExecutionConfig", secrets: "Iterable[str]" = ()
) -> "Iterator[RelativePath]":
    """Yields what the commands of a plan name by a relative path, without secrets.

    Args:
        plan: Whose commands; of each the path on which the others depend.
        config: Tells which variables are secret.
        secrets: Values to mask besides those of the environment.
    """
    hidden = tuple(secrets)
    for index, request in enumerate(plan.commands):
        if text := _relative_path(request):
            yield RelativePath(index, redactor_for(config, [request], hidden).text(text))


def _relative_path(request: "ExecutionRequest") -> str | None:
    directory, command = request.working_dir, request.command
    if directory is not None:
        # What else is relative starts there.
        return None if directory.is_absolute() else f"working_dir {directory}"
    if isinstance(command, ScriptCommand) and not command.path.is_absolute():
        return f"script {command.path}"
    # A program without a slash is looked up in PATH.
    if isinstance(command, ExecCommand) and "/" in command.program:
        return None if command.program.startswith("/") else f"exec {command.program}"
    return None


def in_a_temporary_directory(paths: "list[RelativePath]", names: "list[str]") -> str:
    """Says what relative paths mean to a worker.

    Args:
        paths: One or more.
        names: What the commands of the plan are called.
    """
    lines = [f"\n  {names[path.index]}: {path.text}" for path in paths[:_SHOWN_PATHS]]
    if len(paths) > _SHOWN_PATHS:
        lines.append(f"\n  and {len(paths) - _SHOWN_PATHS} more")
    return (
        "a worker starts in a temporary directory, unless its work pool has a `working_dir`; "
        f"these paths begin there:{''.join(lines)}"
    )
