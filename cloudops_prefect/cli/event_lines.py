"""Events as lines of text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing
from cloudops_prefect.cli.plain_text import coloured, indented, plain
from cloudops_prefect.cli.positions import Positions
from cloudops_prefect.events import leftovers_text
from cloudops_prefect.models import (
    CancelledEvent,
    CompletedEvent,
    FailedEvent,
    ProgressEvent,
    StderrEvent,
    StdoutEvent,
    UnfinishedLine,
)

if TYPE_CHECKING:
    from uuid import UUID

    from cloudops_prefect.models import ExecutionPlan, StreamedEvent


class UnfinishedRow:
    """The unfinished line that has changed last, below all that is printed.

    Args:
        apart: Whether standard error goes to our own, not to standard output.
    """

    def __init__(self, *, apart: bool) -> None:
        self._apart = apart
        self._texts: dict[tuple[UUID, str], str] = {}

    def take(self, event: "StreamedEvent", name: str = "") -> None:
        """Learns from an event which lines are unfinished.

        Args:
            event: Before it is printed itself.
            name: What is shown before its unfinished line.
        """
        if isinstance(event, UnfinishedLine):
            key = (event.execution_id, event.stream)
            self._texts.pop(key, None)
            self._texts[key] = f"{name}{indented(event.line)}"
        elif self._texts and not isinstance(event, ProgressEvent):
            is_line = isinstance(event, StdoutEvent | StderrEvent)
            for stream in [event.event_type] if is_line else ["stdout", "stderr"]:
                self._texts.pop((event.execution_id, stream), None)
        else:
            return
        if not self._texts:
            printing.bottom_row(None)
            return
        (_, stream), text = next(reversed(self._texts.items()))
        printing.bottom_row(text, error=self._apart and stream == "stderr")


class CommandLines:
    """What one command prints, each stream to our own."""

    def __init__(self) -> None:
        self._row = UnfinishedRow(apart=True)

    def show(self, event: "StreamedEvent") -> None:
        """Prints the event, if it is a line."""
        self._row.take(event)
        if isinstance(event, StdoutEvent):
            printing.line(event.line)
        elif isinstance(event, StderrEvent):
            printing.error_line(event.line)


class PlanLines:
    """What the commands of a plan do, each line with the command's name in front."""

    def __init__(self, plan: "ExecutionPlan", names: Sequence[str]) -> None:
        self._names = names
        self._row = UnfinishedRow(apart=False)
        self._positions = Positions(plan)
        # In a file the colours of a command are noise.
        self._shown = coloured if printing.has_colours() else plain

    def show(self, event: "StreamedEvent") -> None:
        """Prints the event, if there is something to read in it."""
        if isinstance(event, ProgressEvent):
            return
        name = self.name_of(event.execution_id, event.request_id)
        self._row.take(event, f"[{name}] ")
        if (text := _text(event)) is not None:
            printing.line(f"[{name}] {self._shown(text)}")

    def name_of(self, execution_id: "UUID", request_id: "UUID") -> str:
        """What a command is called, by the ids that its events have."""
        index = self._positions.of(execution_id, request_id)
        return str(request_id) if index is None else self._names[index]


def _text(event: "StreamedEvent") -> str | None:
    match event:
        case StdoutEvent() | StderrEvent():
            return event.line
        case CompletedEvent():
            took = printing.seconds(event.result.duration)
            return f"-- completed in {took}{leftovers_text(event.result)}"
        case FailedEvent():
            return f"-- failed: {event.error}"
        case CancelledEvent():
            return "-- cancelled"
        case _:
            return None
