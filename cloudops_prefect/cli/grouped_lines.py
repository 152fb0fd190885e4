"""The output of a plan's commands, each command's in one piece."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloudops_prefect.cli import printing
from cloudops_prefect.cli.event_lines import PlanLines
from cloudops_prefect.models import ProgressEvent, StderrEvent, StdoutEvent, UnfinishedLine

if TYPE_CHECKING:
    from uuid import UUID

    from cloudops_prefect.models import ExecutionPlan, StreamedEvent

_KEPT = 1_000_000


@dataclass(slots=True)
class _Group:
    events: deque["StdoutEvent | StderrEvent"] = field(
        default_factory=deque["StdoutEvent | StderrEvent"]
    )
    size: int = 0
    dropped: int = 0

    def add(self, event: "StdoutEvent | StderrEvent") -> None:
        """Keeps the event, and forgets the oldest ones past a million characters."""
        self.events.append(event)
        self.size += len(event.line)
        while self.size > _KEPT and len(self.events) > 1:
            self.size -= len(self.events.popleft().line)
            self.dropped += 1


class GroupedLines:
    """Prints what a command printed once it has ended, with its name in front of each line."""

    def __init__(self, plan: "ExecutionPlan", names: Sequence[str]) -> None:
        self._lines = PlanLines(plan, names)
        self._groups: dict[UUID, _Group] = {}

    def show(self, event: "StreamedEvent") -> None:
        """Takes an event; the last one of a command has all of its lines printed."""
        if isinstance(event, ProgressEvent | UnfinishedLine):
            return
        if isinstance(event, StdoutEvent | StderrEvent):
            self._groups.setdefault(event.execution_id, _Group()).add(event)
            return
        if event.event_type != "started":
            self._print(event.execution_id, event.request_id)
        self._lines.show(event)

    def _print(self, execution_id: "UUID", request_id: "UUID") -> None:
        group = self._groups.pop(execution_id, _Group())
        if group.dropped:
            name = self._lines.name_of(execution_id, request_id)
            printing.line(f"[{name}] -- {group.dropped} earlier lines are in its log only")
        for event in group.events:
            self._lines.show(event)
