"""What the command line prints."""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TextIO

from cloudops_prefect.unicode_text import valid_text

if TYPE_CHECKING:
    from rich.console import Console

    from cloudops_prefect.models import (
        ExecutionResult,
        ExecutionSummary,
    )

_SHORT_ID = 8
_NARROW, _NARROWER = 90, 55
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


def content(data: bytes) -> None:
    """Prints the content of a file to standard output."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def bottom_row(text: str | None, *, error: bool = False) -> None:
    """Keeps a text below all that is printed, until another or None takes its place.

    Only a screen shows it, in one row, without its beginning if it is too long for that.

    Args:
        text: What is shown.
        error: Whether it belongs to standard error, not to standard output.
    """
    _bottom.erase()
    stream = sys.stderr if error else sys.stdout
    _bottom.stream, _bottom.text = stream, text if _can_move_cursor(stream) else None
    _bottom.draw()


def _can_move_cursor(stream: TextIO) -> bool:
    return stream.isatty() and not _in_ci() and os.environ.get("TERM", "dumb") != "dumb"


class _BottomRow:
    """What stands below all that is printed."""

    def __init__(self) -> None:
        self.stream = sys.stdout
        self.text: str | None = None

    def draw(self) -> None:
        """Writes the row, and leaves the cursor at its end."""
        if self.text is not None:
            self.stream.write(valid_text(_end_of_row(self.text)))
            self.stream.flush()

    def erase(self) -> None:
        """Takes the row off the screen, and leaves the cursor where it began."""
        if self.text is not None:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


_bottom = _BottomRow()


def _end_of_row(text: str) -> str:
    """The last part of a text that the screen has room for in a row."""
    from rich.cells import cell_len

    width = shutil.get_terminal_size().columns - 1
    if cell_len(text) <= width:
        return text
    end = text[1 - width :]
    while cell_len(end) >= width:
        end = end[1:]
    return f"…{end}"


def _write(stream: TextIO, text: str) -> None:
    _bottom.erase()
    print(valid_text(text), file=stream, flush=True)
    _bottom.draw()


def on_screen() -> bool:
    """Whether somebody looks at standard output: it is a terminal, and not that of a CI system."""
    return sys.stdout.isatty() and not _in_ci()


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def has_colours() -> bool:
    """Whether what is printed may have colours."""
    return on_screen() and not os.environ.get("NO_COLOR")


def json_document(value: object) -> None:
    """Prints a value as indented JSON; models in their own JSON form."""
    line(_json(value, indent=2))


def json_line(value: object) -> None:
    """Prints a value as JSON on one line."""
    line(_json(value))


def _json(value: object, indent: int | None = None) -> str:
    import json

    from pydantic_core import to_jsonable_python

    # Not pydantic's to_json, which refuses what is no valid text: `_write` replaces that.
    separators = (",", ":") if indent is None else None
    data = to_jsonable_python(value)
    return json.dumps(data, ensure_ascii=False, indent=indent, separators=separators)


def executions(summaries: Sequence["ExecutionSummary"]) -> None:
    """Prints a list of executions; where a person reads it, each as short as it can be told."""
    width = console().width
    narrow = on_screen() and width < _NARROW
    facts = {
        "ID": _shown_ids([str(one.id) for one in summaries]),
        "STATUS": [one.status.value for one in summaries],
        "KIND": [one.kind for one in summaries],
        "STARTED": [local_time(one.started_at, brief=narrow) for one in summaries],
        "DURATION": [seconds(one.duration) for one in summaries],
        "NAME": [one.name for one in summaries],
    }
    if narrow:
        del facts["KIND"]
    if narrow and width < _NARROWER:
        del facts["STARTED"]
    table([*facts], zip(*facts.values(), strict=True), cut="NAME")


def _shown_ids(ids: Sequence[str]) -> Sequence[str]:
    return _shortened(ids) if on_screen() else ids


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


def local_time(moment: datetime | None, *, brief: bool = False) -> str:
    """A moment in the time zone of who reads it; `brief` without the year and the seconds."""
    form = "%m-%d %H:%M" if brief else "%Y-%m-%d %H:%M:%S"
    return "" if moment is None else moment.astimezone().strftime(form)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, cut: str = "") -> None:
    """Prints a table; cells that say a status are coloured.

    Args:
        headings: What is above the columns.
        rows: The cells.
        cut: The column that loses its ends where the screen is too narrow for it.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        # Rich makes those narrower that could be wrapped.
        table.add_column(heading, overflow="fold", no_wrap=bool(cut) and heading != cut)
    for row in rows:
        cells = [Text(cell, style=colour(cell)) for cell in row]
        for heading, cell in zip(headings, cells, strict=True):
            if heading == cut:
                cell.no_wrap, cell.overflow = True, "ellipsis"
        table.add_row(*cells)
    if on_screen():
        console().print(table)
        return
    out = console()
    with out.capture() as captured:
        out.print(table)
    # Blanks up to the end of the widest row are of no use to programs.
    line("\n".join(row.rstrip() for row in captured.get().splitlines()))


def console() -> "Console":
    """What rich prints to."""
    from rich.console import Console

    # Where nobody looks at a screen, a row is one line, however long, and has no colours.
    screen = on_screen()
    return Console(
        highlight=False,
        width=None if screen else 10_000,
        force_terminal=None if screen or "FORCE_COLOR" in os.environ else False,
    )
