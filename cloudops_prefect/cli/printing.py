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
    table(
        ["ID", "STATUS", "KIND", "STARTED", "DURATION", "NAME"],
        [
            [
                identifier,
                summary.status.value,
                summary.kind,
                local_time(summary.started_at),
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


def exit_code(result: "ExecutionResult") -> str:
    """The exit code; empty if there is none."""
    return "" if result.exit_code is None else str(result.exit_code)


def local_time(moment: datetime | None) -> str:
    """A moment in the time zone of who reads it."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table; cells that say a status are coloured."""
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
