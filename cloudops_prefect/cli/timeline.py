"""Which command of a run ran when, as bars in the terminal."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing

if TYPE_CHECKING:
    from rich.text import Text

    from cloudops_prefect.cli.picture import Picture

_LEAST_OF_BAR, _USUAL_BAR = 8, 20
_WIDTH_ELSEWHERE = 100
_MOST_OF_NAME = 30
_LEAST_OF_NAME = 8
_BESIDE = 22
"""What a row has beside the name and the bar: a duration, a status, blanks."""


def print_timeline(picture: "Picture") -> None:
    """Prints the commands in the order in which they began, those that did not run last."""
    from rich.cells import cell_len
    from rich.text import Text

    console = printing.console()
    ran = sorted(
        (index for index in picture.graph if picture.duration(index) is not None),
        key=lambda index: (_start(picture, index), index),
    )
    names = [*(picture.names[index] for index in ran)]
    width = console.width if printing.on_screen() else _WIDTH_ELSEWHERE
    most = max(_LEAST_OF_NAME, min(_MOST_OF_NAME, width - _USUAL_BAR - _BESIDE))
    room = min(most, max(map(cell_len, names), default=0))
    bars = max(_LEAST_OF_BAR, width - room - _BESIDE)
    console.print(Text.assemble((picture.title, "bold"), (f"  {picture.subtitle}", "dim")))
    if picture.span is not None:
        console.print(Text(f"{'':<{room}}  {_scale(picture, bars)}", style="dim"), soft_wrap=True)
    for index in ran:
        console.print(_row(picture, index, room, bars), soft_wrap=True)
    if idle := [picture.names[index] for index in picture.graph if index not in set(ran)]:
        console.print(Text(f"did not run: {', '.join(idle)}", style="dim"), soft_wrap=True)


def _row(picture: "Picture", index: int, room: int, bars: int) -> "Text":
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    name, status = picture.names[index], picture.status(index)
    if cell_len(name) > room:
        name = f"{set_cell_size(name, room - 1)}…"
    begin, end = _bar(picture, index, bars)
    style = printing.colour(status)
    row = Text(f"{set_cell_size(name, room)}  {' ' * begin}")
    row.append("█" * (end - begin), style=style)
    took = printing.seconds(picture.duration(index) or timedelta())
    row.append(f"{' ' * (bars - end)}  {took:>7}")
    return row if status == "completed" else row.append(f" {status}", style=style)


def _bar(picture: "Picture", index: int, bars: int) -> tuple[int, int]:
    """Returns in which of the columns a command ran; at least one."""
    assert picture.span is not None  # noqa: S101 (it ran)
    first, last = picture.span
    whole = max((last - first).total_seconds(), 0.001)
    start = (_start(picture, index) - first).total_seconds()
    took = (picture.duration(index) or timedelta()).total_seconds()
    begin = min(round(start / whole * bars), bars - 1)
    return begin, min(max(begin + 1, round((start + took) / whole * bars)), bars)


def _scale(picture: "Picture", bars: int) -> str:
    assert picture.span is not None  # noqa: S101 (something ran)
    first, last = picture.span
    begin = first.astimezone().strftime("%H:%M:%S")
    took = f"+{printing.seconds(last - first)}"
    return f"{begin}{took:>{bars - len(begin)}}"


def _start(picture: "Picture", index: int) -> datetime:
    assert picture.facts is not None  # noqa: S101 (it ran)
    return picture.facts[index].started_at or picture.now
