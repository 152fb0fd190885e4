"""Prefect's task engine as it runs the commands of our flow runs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, cast

from prefect.client.schemas.objects import RunInput, State, TaskRunResult
from prefect.task_engine import AsyncTaskRunEngine
from prefect.utilities.annotations import quote

from cloudops_prefect.states import cancelled_state

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from uuid import UUID

    from prefect.client.schemas.objects import TaskRun
    from prefect.tasks import Task
    from prefect.types import DateTime

    from cloudops_prefect.models import ExecutionRequest

MAX_EDGES = 1000
"""Edges to its predecessors that a task run has at most: events are limited to 1.5 MB."""


@dataclass
class CommandTaskEngine(AsyncTaskRunEngine[Any, Any]):
    """Run one command as a task run, as `run_task_async` does.

    It differs from Prefect's engine in what it logs (one record of a command that did not
    complete, with the reason, and none of one that did: each record costs as much as a short
    command), in that an interrupted command is `Cancelled`, not `Crashed`, and in that somebody
    else has waited for the limits of its tags (`TagLimits`).

    Attributes:
        upstream: The task runs that the command has waited for: its edges in the UI's graph.
    """

    upstream: Sequence[UUID] = ()
    _tags: list[str] = field(init=False, default_factory=list[str])

    async def run(self, task_run_id: UUID) -> TaskRun:
        """Run the task under an id and return its task run, in its final state."""
        async with self.start(task_run_id=task_run_id, dependencies=self._edges()):
            while self.is_running():
                await self.wait_until_ready()
                async with (
                    self.asset_context(),
                    self.run_context(),
                    self.transaction_context() as transaction,
                ):
                    await self.call_task_fn(transaction)
        assert self.task_run is not None  # noqa: S101 (the engine has started)
        return self.task_run

    async def end(self, task_run_id: UUID, name: str, state: State[Any]) -> TaskRun:
        """Report a task run that ends in a state without having run, and return it."""
        edges = self._edges()
        async with super().initialize_run(task_run_id=task_run_id, dependencies=edges):
            task_run = self.task_run
            assert task_run is not None  # noqa: S101 (it is initialized)
            task_run.name = name
            # Without an end the UI's graph would stretch it, and the whole plan, to the present.
            task_run.end_time = task_run.expected_start_time
            # Of two states the API takes the later one, and Pending is newer than this.
            state.timestamp = cast("DateTime", datetime.now(UTC))
            await self.set_state(state)
        return task_run

    @asynccontextmanager
    async def initialize_run(
        self,
        task_run_id: UUID | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> AsyncGenerator[Self]:
        """Create the task run, whose slots Prefect's engine does not ask for until it begins."""
        async with super().initialize_run(task_run_id, dependencies):
            assert self.task_run is not None  # noqa: S101 (it is initialized)
            self._tags, self.task_run.tags = self.task_run.tags, []
            yield self

    async def begin_run(self) -> None:
        """Report the task run as `Running`, with its tags."""
        assert self.task_run is not None  # noqa: S101 (it is initialized)
        self.task_run.tags = self._tags
        await super().begin_run()

    def log_finished_message(self) -> None:
        """Log why a command that has begun did not complete."""
        if self.task_run is None or self.task_run.start_time is None:
            return
        if self.state.is_final() and not self.state.is_completed():
            self.logger.error(self.state.message)

    async def handle_retry(self, exc_or_state: Exception | State[Any]) -> bool:
        """Report whether the command is to run again; the last failure is not logged here."""
        if self.retries >= self.task.retries:
            return False
        return await super().handle_retry(exc_or_state)

    async def handle_crash(self, exc: BaseException) -> None:
        """Report how the task run ended that an exception has left without a state."""
        if not isinstance(exc, asyncio.CancelledError):
            await super().handle_crash(exc)
            return
        # The process tree is gone when the cancellation arrives here.
        await self.set_state(cancelled_state(), force=True)
        self._raised = exc

    def _edges(self) -> dict[str, set[RunInput]]:
        edges = (TaskRunResult(id=one) for one in self.upstream[:MAX_EDGES])
        return {"request": set[RunInput](edges)}


def engine_for(
    task: Task[..., Any], request: ExecutionRequest, upstream: Sequence[UUID]
) -> CommandTaskEngine:
    """Return the engine of one command.

    Args:
        task: One of this package's tasks.
        request: Its parameter.
        upstream: The task runs that the command has waited for.
    """
    # Unquoted, requests that share an object would have an edge between them.
    return CommandTaskEngine(task=task, parameters={"request": quote(request)}, upstream=upstream)
