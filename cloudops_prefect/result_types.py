"""What comes out of an execution: its status, results and events."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, NewType, Self
from uuid import UUID

from pydantic import Discriminator, Field, NonNegativeInt, model_validator

from cloudops_prefect.durations import Duration
from cloudops_prefect.frozen import FrozenModel, ShownPath, Text

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionPlan, ExecutionRequest


CommandExecutionId = NewType("CommandExecutionId", UUID)
"""The id of a single command's execution. It is a plain `UUID` that type checkers tell apart."""

PlanExecutionId = NewType("PlanExecutionId", UUID)
"""The id of a plan's execution. It is a plain `UUID` that type checkers tell apart."""


def _now() -> datetime:
    return datetime.now(UTC)


class ExecutionStatus(StrEnum):
    """Where an execution stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"

    @property
    def is_final(self) -> bool:
        """Whether the execution has ended, one way or another."""
        return self not in {ExecutionStatus.PENDING, ExecutionStatus.RUNNING}


class ExecutionResult(FrozenModel):
    """How one command ended.

    `exit_code` is -N if signal N ended the command, -1 if it couldn't be started, and absent if it
    never ran. `stdout` and `stderr` are the last part of each stream, whole unless the field beside
    it says that it was truncated. `leftovers` are the background processes that had to be stopped
    after the command had ended, each as its command line and pid.
    """

    id: UUID = Field(description="The request's id")
    execution_id: UUID
    name: Text | None = Field(
        default=None, description="The command's name, or what it runs if it has none"
    )
    status: ExecutionStatus
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    duration: Duration = timedelta()
    started_at: datetime | None = None
    completed_at: datetime | None = None
    log_path: ShownPath | None = None
    error: Text | None = None
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    leftovers: list[str] = Field(default_factory=list[str])

    @classmethod
    def not_run(cls, request: "ExecutionRequest", execution_id: UUID, reason: str) -> Self:
        """Build the result of a command that never ran: cancelled, with the reason as its error."""
        return cls(
            id=request.id,
            execution_id=execution_id,
            status=ExecutionStatus.CANCELLED,
            error=reason,
        )

    @classmethod
    def failed(cls, request: "ExecutionRequest", execution_id: UUID, reason: str) -> Self:
        """Build the result of a command of which nothing else is known: failed, exit code -1."""
        now = _now()
        return cls(
            id=request.id,
            execution_id=execution_id,
            status=ExecutionStatus.FAILED,
            exit_code=-1,
            error=reason,
            started_at=now,
            completed_at=now,
        )

    def with_note(self, note: str) -> Self:
        """Return the result with a note at the end of its error."""
        return self.model_copy(update={"error": f"{self.error}; {note}" if self.error else note})

    @property
    def succeeded(self) -> bool:
        """Whether the command completed."""
        return self.status is ExecutionStatus.COMPLETED


class ExecutionStats(FrozenModel):
    """How many commands of a plan ended in which way."""

    total: NonNegativeInt = 0
    completed: NonNegativeInt = 0
    failed: NonNegativeInt = 0
    cancelled: NonNegativeInt = 0
    timeout: NonNegativeInt = 0

    @model_validator(mode="after")
    def _parts_add_up(self) -> Self:
        parts = self.completed + self.failed + self.cancelled + self.timeout
        if parts != self.total:
            raise ValueError(
                f"completed, failed, cancelled and timeout add up to {parts}, total is {self.total}"
            )
        return self

    @classmethod
    def of(cls, results: Sequence[ExecutionResult]) -> Self:
        """Count results; one that never came to an end counts as cancelled."""
        counts = Counter(result.status for result in results)
        completed = counts[ExecutionStatus.COMPLETED]
        failed = counts[ExecutionStatus.FAILED]
        timeout = counts[ExecutionStatus.TIMEOUT]
        return cls(
            total=len(results),
            completed=completed,
            failed=failed,
            cancelled=len(results) - completed - failed - timeout,
            timeout=timeout,
        )


class PlanExecutionResult(FrozenModel):
    """How a plan ended, with one result for every command, in the plan's order."""

    plan_id: UUID
    execution_id: UUID
    status: ExecutionStatus
    results: list[ExecutionResult]
    total_duration: Duration
    stats: ExecutionStats

    @classmethod
    def of(
        cls,
        plan: "ExecutionPlan",
        execution_id: UUID,
        results: Sequence[ExecutionResult],
        *,
        total_duration: timedelta,
        cancelled: bool = False,
    ) -> Self:
        """Sum up the results of a plan's commands.

        Args:
            plan: The plan that ran.
            execution_id: The id of the plan's execution.
            results: One for every command, in the plan's order.
            total_duration: From the plan's start to its end.
            cancelled: Whether the plan itself was cancelled.
        """
        stats = ExecutionStats.of(results)
        status = ExecutionStatus.FAILED
        if cancelled:
            status = ExecutionStatus.CANCELLED
        elif stats.completed == stats.total:
            status = ExecutionStatus.COMPLETED
        return cls(
            plan_id=plan.id,
            execution_id=execution_id,
            status=status,
            results=list(results),
            total_duration=total_duration,
            stats=stats,
        )

    def as_result(self) -> ExecutionResult:
        """Return the plan as one result.

        The exit code is that of the first command that failed, else 0; the outputs are joined in
        the plan's order.
        """
        return ExecutionResult(
            id=self.plan_id,
            execution_id=self.execution_id,
            status=self.status,
            exit_code=self._exit_code(),
            stdout="".join(result.stdout for result in self.results),
            stderr="".join(result.stderr for result in self.results),
            duration=self.total_duration,
            started_at=min((r.started_at for r in self.results if r.started_at), default=None),
            completed_at=max(
                (r.completed_at for r in self.results if r.completed_at), default=None
            ),
            error=self._error(),
            stdout_truncated=any(result.stdout_truncated for result in self.results),
            stderr_truncated=any(result.stderr_truncated for result in self.results),
            leftovers=[leftover for result in self.results for leftover in result.leftovers],
        )

    def _failures(self) -> list[ExecutionResult]:
        failures = {ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT}
        return [result for result in self.results if result.status in failures]

    def _exit_code(self) -> int:
        return next((r.exit_code for r in self._failures() if r.exit_code is not None), 0)

    def _error(self) -> str | None:
        ended_badly = [*self._failures(), *self.results]
        return next((result.error for result in ended_badly if result.error), None)


class ExecutionSummary(FrozenModel):
    """An execution as one line of a list."""

    id: UUID
    status: ExecutionStatus
    started_at: datetime | None = None
    duration: Duration = timedelta()
    kind: Literal["command", "plan"]
    name: Text


class _CommandEvent(FrozenModel):
    execution_id: UUID
    request_id: UUID
    timestamp: datetime = Field(default_factory=_now)


class StartedEvent(_CommandEvent):
    """A command is about to start; always the first event of an execution."""

    event_type: Literal["started"] = "started"
    command: Text = Field(description="The command as one line")


class StdoutEvent(_CommandEvent):
    """A line of standard output, without its end of line."""

    event_type: Literal["stdout"] = "stdout"
    line: str


class StderrEvent(_CommandEvent):
    """A line of standard error, without its end of line."""

    event_type: Literal["stderr"] = "stderr"
    line: str


class UnfinishedLine(_CommandEvent):
    """What a command has printed since its last line, such as a prompt or a progress bar.

    It is no event of an execution: it comes again as a whole line, and until then in each state
    that lasts for a moment.
    """

    event_type: Literal["unfinished"] = "unfinished"
    stream: Literal["stdout", "stderr"]
    line: str


class CompletedEvent(_CommandEvent):
    """A command exited with 0."""

    event_type: Literal["completed"] = "completed"
    result: ExecutionResult


class FailedEvent(_CommandEvent):
    """A command failed, timed out or couldn't be started."""

    event_type: Literal["failed"] = "failed"
    error: Text


class CancelledEvent(_CommandEvent):
    """A command was cancelled, or never ran."""

    event_type: Literal["cancelled"] = "cancelled"


class ProgressEvent(FrozenModel):
    """How far a plan is: how many of its commands have ended, and which one did or runs now."""

    event_type: Literal["progress"] = "progress"
    plan_id: UUID
    execution_id: UUID
    completed: NonNegativeInt
    total: NonNegativeInt
    current_command: Text | None = None
    timestamp: datetime = Field(default_factory=_now)


ExecutionEvent = Annotated[
    StartedEvent
    | StdoutEvent
    | StderrEvent
    | CompletedEvent
    | FailedEvent
    | CancelledEvent
    | ProgressEvent,
    Discriminator("event_type"),
]

StreamedEvent = ExecutionEvent | UnfinishedLine
"""What a stream yields that was asked for unfinished lines, too."""
