"""Events as lines of text."""

from typing import TYPE_CHECKING
from uuid import UUID

from cloudops_prefect.cli import printing
from cloudops_prefect.models import (
    CancelledEvent,
    CompletedEvent,
    FailedEvent,
    ProgressEvent,
    StartedEvent,
    StderrEvent,
    StdoutEvent,
)

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionEvent


class CommandLines:
    """What one command prints, each stream to our own."""

    def show(self, event: "ExecutionEvent") -> None:
        """Prints the event, if it is a line."""
        if isinstance(event, StdoutEvent):
            printing.line(event.line)
        elif isinstance(event, StderrEvent):
            printing.error_line(event.line)


class PlanLines:
    """What the commands of a plan do, each line with the command's name in front."""

    def __init__(self, names: dict[UUID, str]) -> None:
        self._names = names

    def show(self, event: "ExecutionEvent") -> None:
        """Prints the event, if there is something to read in it."""
        if isinstance(event, ProgressEvent):
            return
        if isinstance(event, StartedEvent):
            self._names.setdefault(event.request_id, event.command)
        elif (text := _text(event)) is not None:
            name = self._names.get(event.request_id, str(event.request_id))
            printing.line(f"[{name}] {text}")


def _text(event: "ExecutionEvent") -> str | None:
    match event:
        case StdoutEvent() | StderrEvent():
            return event.line
        case CompletedEvent():
            return f"-- completed in {printing.seconds(event.result.duration)}"
        case FailedEvent():
            return f"-- failed: {event.error}"
        case CancelledEvent():
            return "-- cancelled"
        case _:
            return None
