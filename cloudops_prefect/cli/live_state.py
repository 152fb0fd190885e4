"""What is known of a plan's run while it goes on, gathered from events and from the API."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloudops_prefect.cli.positions import Positions
from cloudops_prefect.graph import Wiring, plan_graph
from cloudops_prefect.models import (
    CancelledEvent,
    CompletedEvent,
    ExecutionStatus,
    FailedEvent,
    ProgressEvent,
    StartedEvent,
)

if TYPE_CHECKING:
    from uuid import UUID

    from cloudops_prefect.cli.picture import RunFacts
    from cloudops_prefect.models import ExecutionPlan, StreamedEvent

_TIMED_OUT = "Execution timeout"
_PENDING, _RUNNING = ExecutionStatus.PENDING, ExecutionStatus.RUNNING


@dataclass(slots=True)
class CommandState:
    """Where one command stands."""

    name: str
    status: ExecutionStatus = _PENDING
    started_at: datetime | None = None
    ended_at: datetime | None = None
    last_line: str = ""


class RunState:
    """Where each command of a plan stands.

    Args:
        plan: What runs.
        names: What its commands are called.
    """

    def __init__(self, plan: "ExecutionPlan", names: Sequence[str]) -> None:
        self.began_at = datetime.now(UTC)
        self.execution_id: UUID | None = None
        self.commands = [CommandState(name) for name in names]
        self.waits_for = ""
        self._positions = Positions(plan)
        self._plan = plan
        self._stops_on_failure = Wiring.of_plan(plan).stop_on_failure

    def take(self, event: "StreamedEvent") -> None:
        """Learns from an event."""
        if isinstance(event, ProgressEvent):
            self.execution_id = event.execution_id
            return
        if (index := self._positions.of(event.execution_id, event.request_id)) is None:
            return
        command = self.commands[index]
        match event:
            case StartedEvent():
                self.waits_for = ""
                command.status = _RUNNING
                command.started_at = command.started_at or event.timestamp
            case CompletedEvent(result=result):
                self._end(index, result.status, result.completed_at)
                command.started_at = result.started_at or command.started_at
            case FailedEvent(error=error):
                timed_out = error.startswith(_TIMED_OUT)
                status = ExecutionStatus.TIMEOUT if timed_out else ExecutionStatus.FAILED
                self._end(index, status, event.timestamp)
            case CancelledEvent():
                self._end(index, ExecutionStatus.CANCELLED, event.timestamp)
            case _:
                command.last_line = event.line or command.last_line

    def learn(self, facts: "RunFacts") -> None:
        """Takes what the API knows of the run; it knows ends later than events do."""
        self.waits_for = facts.waits_for
        self.began_at = min(self.began_at, facts.began_at or self.began_at)
        for index, one in enumerate(facts.commands):
            command = self.commands[index]
            command.started_at = one.started_at or command.started_at
            if one.status.is_final and not command.status.is_final:
                self._end(index, one.status, one.ended_at)
            elif one.status is _RUNNING and command.status is _PENDING:
                command.status = _RUNNING

    def counts(self) -> Counter[str]:
        """How many commands stand where."""
        return Counter(command.status.value for command in self.commands)

    @property
    def ended(self) -> int:
        """How many commands have ended."""
        return sum(command.status.is_final for command in self.commands)

    def shown(self, room: int) -> list[int]:
        """Which commands to show where there is room for so many, in the plan's order.

        First what runs, then what failed, what ended last, and what comes next.
        """
        ranked = sorted(range(len(self.commands)), key=self._rank)
        return sorted(ranked[: max(room, 0)])

    def _rank(self, index: int) -> tuple[int, float]:
        command = self.commands[index]
        if command.status is _RUNNING:
            return 0, index
        if command.status in {ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT}:
            return 1, index
        if command.ended_at is not None:
            return 2, -command.ended_at.timestamp()
        return 3, index

    def _end(self, index: int, status: ExecutionStatus, ended_at: datetime | None) -> None:
        command = self.commands[index]
        command.status = status
        command.ended_at = ended_at or (command.started_at and datetime.now(UTC))
        if status is not ExecutionStatus.COMPLETED and self._stops_on_failure:
            self._leave_out(index)

    def _leave_out(self, failed: int) -> None:
        """Marks what will not run any more: nothing tells of it before the plan's end."""
        import networkx as nx

        left_out = nx.descendants(plan_graph(self._plan), failed)  # pyright: ignore[reportUnknownMemberType]
        for index in left_out:
            if self.commands[index].status is _PENDING:
                self.commands[index].status = ExecutionStatus.CANCELLED
