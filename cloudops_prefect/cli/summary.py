"""How plans and commands ended, for people."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing
from cloudops_prefect.cli.plain_text import printable

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionResult, PlanExecutionResult

STOPPED = "stopped a process left in the background:"

_LAST_LINES = 10
_LAST_BYTES = 16_384
_NAMED = 5


def plan_summary(
    result: "PlanExecutionResult", names: Sequence[str], reason: str | None = None
) -> None:
    """Print how the commands of a plan and the plan ended, and the last lines of what failed.

    Args:
        result: How the plan ended.
        names: What its commands are called.
        reason: Why it failed, if no command says so.
    """
    printing.table(
        ["COMMAND", "STATUS", "EXIT", "DURATION"],
        [
            [name, r.status.value, printing.exit_code(r), _took(r)]
            for name, r in zip(names, result.results, strict=True)
        ],
    )
    left_out = Counter(one.error for one in result.results if one.started_at is None)
    many = {error: count for error, count in left_out.items() if error and count > _NAMED}
    for name, command in zip(names, result.results, strict=True):
        if command.error and not (command.started_at is None and command.error in many):
            printing.line(f"{name}: {command.error}")
        for leftover in command.leftovers:
            printing.line(f"{name}: {STOPPED} {leftover}")
        if command.status in {"failed", "timeout"}:
            _print_end(command)
    for error, count in many.items():
        printing.line(f"{count} commands: {error}")
    if reason is not None:
        printing.line(reason)
    stats, took = result.stats, printing.seconds(result.total_duration)
    printing.line(
        f"{result.status.value}: {stats.completed} of {stats.total} commands completed in {took}"
    )


def command_summary(result: "ExecutionResult") -> None:
    """Prints how a command ended, and what it had printed."""
    rows = {
        "id": str(result.execution_id),
        "status": result.status.value,
        "exit code": printing.exit_code(result),
        "started": printing.local_time(result.started_at),
        "duration": printing.seconds(result.duration),
        "log": str(result.log_path or ""),
        "error": result.error or "",
        "stopped": "\n           ".join(result.leftovers),
    }
    for name, value in rows.items():
        if value:
            printing.line(f"{name + ':':<11}{value}")
    for stream, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if text:
            printing.line(f"{stream}:\n{text.rstrip(chr(10))}")


def _took(command: "ExecutionResult") -> str:
    return "" if command.started_at is None else printing.seconds(command.duration)


def _print_end(command: "ExecutionResult") -> None:
    for text in _last_lines(command):
        printing.line(f"  | {text}")
    if command.log_path is not None:
        printing.line(f"  log: {command.log_path}")


def _last_lines(command: "ExecutionResult") -> list[str]:
    """The last lines as they were printed; where the log is elsewhere, those of each stream."""
    text = _end_of(command.log_path) if command.log_path else None
    lines = (command.stdout + command.stderr if text is None else text).splitlines()
    shown = [printable(one) for one in lines]
    return [one for one in shown if one][-_LAST_LINES:]


def _end_of(log: Path) -> str | None:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LAST_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return None
