"""What is said of a plan though it may run: where it will not do what its file seems to say."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing
from cloudops_prefect.models import ExecCommand, ParallelStrategy, ScriptCommand
from cloudops_prefect.shown import redactor_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloudops_prefect.config import ExecutionConfig
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
