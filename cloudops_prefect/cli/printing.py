"""What the command line prints."""

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from cloudops_prefect.models import (
        ExecutionResult,
        ExecutionSummary,
        PlanExecutionResult,
    )

_SHORT_ID = 8
_COLOURS = {
    "completed": "green",
    "failed": "red",
    "timeout": "red",
    "cancelled": "yellow",
    "running": "blue",
}


def line(text: str) -> None:
    """Prints one line to standard output."""
    _write(sys.stdout, text)


def error_line(text: str) -> None:
    """Prints one line to standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # Whoever read has gone, as `head` does; that is no reason to leave a deployment half done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def json_document(value: object) -> None:
    """Prints a value as indented JSON; models in their own JSON form."""
    from pydantic_core import to_json

    line(to_json(value, indent=2).decode())


def executions(summaries: Sequence["ExecutionSummary"]) -> None:
    """Prints a list of executions; where a person reads it, with ids as short as can be typed."""
    ids = [str(summary.id) for summary in summaries]
    shown = _shortened(ids) if sys.stdout.isatty() else ids
    _table(
        ["ID", "STATUS", "KIND", "STARTED", "DURATION", "NAME"],
        [
            [
                identifier,
                summary.status.value,
                summary.kind,
                _local_time(summary.started_at),
                seconds(summary.duration),
                summary.name,
            ]
            for identifier, summary in zip(shown, summaries, strict=True)
        ],
    )


def _shortened(ids: Sequence[str]) -> list[str]:
    length = _SHORT_ID
    while len({one[:length] for one in ids}) < len(ids):
        length += 1
    return [one[:length] for one in ids]


def plan_summary(result: "PlanExecutionResult", names: Sequence[str]) -> None:
    """Prints how each command of a plan ended, and the plan as a whole."""
    _table(
        ["COMMAND", "STATUS", "EXIT", "DURATION"],
        [
            [name, r.status.value, _exit_code(r), seconds(r.duration)]
            for name, r in zip(names, result.results, strict=True)
        ],
    )
    for name, command in zip(names, result.results, strict=True):
        if command.error:
            line(f"{name}: {command.error}")
    stats, took = result.stats, seconds(result.total_duration)
    line(f"{result.status.value}: {stats.completed} of {stats.total} commands completed in {took}")


def command_summary(result: "ExecutionResult") -> None:
    """Prints how a command ended, and what it had printed."""
    rows = {
        "id": str(result.execution_id),
        "status": result.status.value,
        "exit code": _exit_code(result),
        "started": _local_time(result.started_at),
        "duration": seconds(result.duration),
        "log": str(result.log_path or ""),
        "error": result.error or "",
    }
    for name, value in rows.items():
        if value:
            line(f"{name + ':':<11}{value}")
    for stream, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if text:
            line(f"{stream}:\n{text.rstrip(chr(10))}")


def size(count: int) -> str:
    """A number of bytes as people read it: 512 B, 3.4 MB."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 9.95 or unit == "B" else f"{value:.1f} {unit}"


def colour(status: str) -> str:
    """The style of a status."""
    return _COLOURS.get(status, "")


def seconds(duration: timedelta) -> str:
    """A duration as people read it: 0.3s, 12s, 5m 03s, 2h 05m."""
    total = duration.total_seconds()
    if total < 9.95:
        return f"{total:.1f}s"
    whole = round(total)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def _exit_code(result: "ExecutionResult") -> str:
    return "" if result.exit_code is None else str(result.exit_code)


def _local_time(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=colour(cell)) for cell in row))
    console().print(table)


def console() -> "Console":
    """What rich prints to."""
    from rich.console import Console

    # Where nobody looks at a screen, a row is one line, however long.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
