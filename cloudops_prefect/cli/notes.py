"""What is said of a plan though it may run: where it will not do what its file seems to say."""

from pathlib import Path
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing
from cloudops_prefect.cli.plain_text import printable
from cloudops_prefect.models import ParallelStrategy
from cloudops_prefect.parameters import has_plan
from cloudops_prefect.run_origin import RunOrigin, current_directory
from cloudops_prefect.shell_words import command_line
from cloudops_prefect.unicode_text import path_text

if TYPE_CHECKING:
    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.history import Execution
    from cloudops_prefect.models import ExecutionPlan


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
        where = f", in {_in_one_line(origin.directory)}" if origin.directory else ""
        say(f"the {what} runs as it was started{where}")
    if changed := origin.changed_plan_file():
        again = _run_command(changed, origin.directory)
        say(f"{_in_one_line(changed)} has changed since; to run it as it is now: {again}")


def _in_one_line(path: Path) -> str:
    return printable(path_text(path))


def _run_command(plan_file: Path, directory: Path | None) -> str:
    run = command_line("cloudops", "run", plan_file)
    if directory is None or directory == current_directory():
        return run
    return f"{command_line('cd', directory)} && {run}"


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
