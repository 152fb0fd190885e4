"""The view of a plan's run in a terminal, drawn again and again while it goes on."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.live import Live
from rich.text import Text

from cloudops_prefect.cli import printing
from cloudops_prefect.cli.plain_text import printable
from cloudops_prefect.cli.plan_tree import SIGNS

if TYPE_CHECKING:
    from rich.console import Console

    from cloudops_prefect.cli.live_state import CommandState, RunState
    from cloudops_prefect.cli.picture import RunFacts
    from cloudops_prefect.models import StreamedEvent

REDRAW_INTERVAL_SECONDS = 0.125
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_FRAMES = "|/-\\"
_BAR = 20
_WIDEST_NAME = 32
_NARROWEST_TITLE = 8


def can_be_live() -> bool:
    """Whether standard output is a screen that can be drawn over."""
    return printing.on_screen() and not printing.console().is_dumb_terminal


class LiveView:
    """Shows where each command stands, as many as fit on the screen.

    Args:
        title: What the plan is called.
        state: What is drawn.
        address: Gives the address of a run in the UI.
    """

    def __init__(self, title: str, state: "RunState", address: Callable[[UUID], str]) -> None:
        self.state = state
        self._title = title
        self._address = address
        self._console = printing.console()

    def show(self, event: "StreamedEvent") -> None:
        """Takes an event, to be seen when the view is drawn next."""
        self.state.take(event)

    def learn(self, facts: "RunFacts") -> bool:
        """Takes what the API knows, which it goes on asking for."""
        self.state.learn(facts)
        return True

    @asynccontextmanager
    async def drawn(self) -> AsyncGenerator[None]:
        """Draws the view until the context is left, and then takes it off the screen."""
        # What else is printed meanwhile must go above the view, not into it.
        live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        with live:
            drawing = asyncio.create_task(self._draw(live))
            try:
                yield
            finally:
                drawing.cancel()
                with suppress(asyncio.CancelledError):
                    await drawing

    async def _draw(self, live: Live) -> None:
        while True:
            live.update(self.frame(self._console, datetime.now(UTC)), refresh=True)
            await asyncio.sleep(REDRAW_INTERVAL_SECONDS)

    def frame(self, console: "Console", now: datetime) -> Group:
        """Returns what is seen at a moment."""
        state, plain = self.state, not console.encoding.startswith("utf")
        width, height = console.size
        # Beside the commands: the heading, what is left out, the address, and a line to spare.
        shown = state.shown(height - 4 - bool(state.waits_for))
        names = [cell_len(state.commands[index].name) for index in shown]
        room = min(max(names, default=0), _WIDEST_NAME, width // 3)
        lines = [self._heading(width - 1, now, plain=plain)]
        if state.waits_for:
            lines.append(Text(state.waits_for, style="dim"))
        lines += [_row(state.commands[index], room, now, plain=plain) for index in shown]
        if left_out := len(state.commands) - len(shown):
            lines.append(Text(f"  and {left_out} more: {self._left_out(shown)}", style="dim"))
        if state.execution_id is not None and (address := self._address(state.execution_id)):
            lines.append(Text(f"UI: {address}", style="dim"))
        for line in lines:
            line.truncate(width - 1, overflow="ellipsis")
        return Group(*lines)

    def _heading(self, width: int, now: datetime, *, plain: bool) -> Text:
        total, ended = len(self.state.commands), self.state.ended
        full = _BAR * ended // total
        done, rest = ("#", "-") if plain else ("━", "─")
        bad = {"failed", "timeout"} & self.state.counts().keys()
        took = printing.seconds(now - self.state.began_at)
        progress = Text.assemble(
            (done * full, "red" if bad else "green"),
            (rest * (_BAR - full), "dim"),
            f"  {ended} of {total}  {took}",
        )
        title = Text(self._title, style="bold")
        room = max(width - progress.cell_len - 2, _NARROWEST_TITLE)
        title.truncate(room, overflow="ellipsis")
        return Text.assemble(title, "  ", progress)

    def _left_out(self, shown: list[int]) -> str:
        counts = self.state.counts()
        for index in shown:
            counts[self.state.commands[index].status.value] -= 1
        return ", ".join(f"{count} {status}" for status, count in counts.items() if count > 0)


def _row(command: "CommandState", room: int, now: datetime, *, plain: bool) -> Text:
    status = command.status.value
    style = printing.colour(status)
    frames = _PLAIN_FRAMES if plain else _FRAMES
    sign = frames[int(now.timestamp() / REDRAW_INTERVAL_SECONDS) % len(frames)]
    if status != "running":
        sign = status[0] if plain else SIGNS[status]
    took = ""
    if command.started_at is not None:
        took = printing.seconds(max((command.ended_at or now) - command.started_at, timedelta()))
    name = command.name
    if cell_len(name) > room:
        name = set_cell_size(name, room - 1) + ("~" if plain else "…")
    return Text.assemble(
        (f"{sign} {set_cell_size(name, room)}", style),
        f"  {took:>7}  ",
        (printable(command.last_line), "dim"),
    )
