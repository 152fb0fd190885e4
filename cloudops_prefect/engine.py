"""`ExecutionEngine`: starts commands and plans, and answers for every execution the API knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

import anyio
from prefect.client.schemas.objects import StateType
from prefect.utilities.urls import url_for

from cloudops_prefect import history, local_runs
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import (
    ExecutionNotCompletedError,
    ExecutionNotFoundError,
)
from cloudops_prefect.events import EventHandler, FanOutHandler
from cloudops_prefect.execution import check_paths
from cloudops_prefect.graph import plan_graph
from cloudops_prefect.runtime import Runtime
from cloudops_prefect.streaming import command_events, plan_events

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from prefect.client.schemas.objects import FlowRun

    from cloudops_prefect.history import Execution
    from cloudops_prefect.local_runs import Work
    from cloudops_prefect.models import (
        ExecutionEvent,
        ExecutionPlan,
        ExecutionRequest,
        ExecutionResult,
        ExecutionStatus,
        ExecutionSummary,
        PlanExecutionResult,
    )
    from cloudops_prefect.services import Services

T = TypeVar("T")
INTERVAL = 0.25
"""Seconds between two looks at an execution that another process runs."""


class ExecutionEngine:
    """Runs commands and plans as Prefect flows in this process.

    Prefect's API is where status, results and history are; the engine asks it each time. Leaving
    the engine's context, or the end of the event loop, cancels what still runs and waits for it.
    Ids are those of Prefect's runs; the id of a request or plan means its newest execution.
    """

    def __init__(self, config: ExecutionConfig | None = None) -> None:
        self.config = config or ExecutionConfig()
        self._handlers: tuple[EventHandler, ...] = ()
        self._runtime = Runtime(self.config)

    def with_event_handler(self, handler: EventHandler) -> Self:
        """Returns an engine that also tells `handler` what it does; they share all else."""
        other = type(self)(self.config)
        other._handlers = (*self._handlers, handler)  # noqa: SLF001
        other._runtime = self._runtime  # noqa: SLF001
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancels what runs, and waits until the processes are gone and the API knows it all."""
        await self._runtime.close()

    async def execute(
        self, request: ExecutionRequest, *, idempotency_key: str | None = None
    ) -> UUID:
        """Starts a command and returns at once with the execution's id.

        Args:
            request: What to run.
            idempotency_key: A second call with the same key returns the first one's id.

        Raises:
            ValidationError: if the request is refused; nothing has been started.
            ExecutionIOError: if the API does not answer.
        """
        request.validate(self.config)
        check_paths(request)
        return await self._start(local_runs.Work(request), idempotency_key)

    async def execute_plan(
        self, plan: ExecutionPlan, *, idempotency_key: str | None = None
    ) -> UUID:
        """Starts a plan and returns at once with its execution's id; arguments as `execute`."""
        plan.validate(self.config)
        graph = plan_graph(plan)
        for index, waits_for in graph.in_degree():
            check_paths(plan.commands[index], later=waits_for > 0)
        return await self._start(local_runs.Work(plan), idempotency_key)

    async def get_status(self, execution_id: UUID | str) -> ExecutionStatus:
        """Returns where an execution stands."""
        return await self._ask(_status, await self._find(execution_id))

    async def get_result(self, execution_id: UUID | str) -> ExecutionResult:
        """Returns how an execution ended; a plan's in one result.

        Raises:
            ExecutionNotFoundError: if the API knows no such execution.
            ExecutionNotCompletedError: if it has not ended.
        """
        return await self._ask(_result, await self._find(execution_id))

    async def get_plan_result(self, execution_id: UUID | str) -> PlanExecutionResult:
        """Returns how a plan ended; raises as `get_result`."""
        return await self._ask(_plan_result, await self._find(execution_id))

    async def list_executions(
        self, *, limit: int = 100, offset: int = 0, status: ExecutionStatus | None = None
    ) -> list[ExecutionSummary]:
        """Returns executions of commands and plans, the newest first."""

        async def read(services: Services) -> list[ExecutionSummary]:
            return await history.read_list(
                services.client, limit=limit, offset=offset, status=status
            )

        return await self._ask(read)

    async def cancel(self, execution_id: UUID | str) -> None:
        """Asks for the end of an execution; a second time does nothing.

        Raises:
            ExecutionNotFoundError: if the API knows no such execution.
            ExecutionNotRunningError: if it has ended.
        """
        await self._ask(local_runs.cancel, await self._find(execution_id))

    async def read_logs(self, execution_id: UUID | str) -> str:
        """Returns what an execution has printed: from its log here, else what the API has."""
        execution = await self._find(execution_id)
        if execution.index is None and (plan := execution.plan) is not None:
            parts = [await self._read_log(one) for one in history.commands_of(execution, plan)]
            return "".join(parts)
        return await self._read_log(execution)

    def get_log_path(self, execution_id: UUID | str) -> Path:
        """Returns where an execution's log is on the machine that ran it, without looking."""
        known = _uuid(execution_id)
        return self.config.log_path(self._runtime.newest.get(known, known))

    def ui_url(self, execution_id: UUID | str) -> str:
        """Returns the address of a run in Prefect's UI; empty if the API has no known UI."""
        known = _uuid(execution_id)
        flow_run_id = self._runtime.newest.get(known, known)
        return url_for("flow-run", obj_id=flow_run_id) or ""

    async def wait(
        self, execution_id: UUID | str, *, timeout: float | None = None
    ) -> ExecutionResult | PlanExecutionResult:
        """Waits for the end of an execution and returns how it ended.

        Args:
            execution_id: Which.
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: if it has not ended by then.
        """
        with anyio.fail_after(timeout):
            execution = await self._find(execution_id)
            await self._runtime.until_ended(execution.flow_run.id)
            while not (await self._ask(_status, execution)).is_final:
                await anyio.sleep(INTERVAL)
                execution = await self._find(execution.id)
            execution = await self._find(execution.id)
            if execution.index is None and execution.plan is not None:
                return await self._ask(_plan_result, execution)
            return await self._ask(_result, execution)

    async def stream(self, execution_id: UUID | str) -> AsyncGenerator[ExecutionEvent, None]:
        """Yields what an execution does, from its first event, live, until it has ended."""
        execution = await self._find(execution_id)
        if execution.index is not None or (plan := execution.plan) is None:
            request = execution.request
            assert request is not None  # noqa: S101 (a single command's run has one)
            events = command_events(
                request, execution.id, self.config, lambda: self._result_of(execution)
            )
        else:
            events = self._plan_events(execution, plan)
        async for event in events:
            yield event

    def _plan_events(
        self, execution: Execution, plan: ExecutionPlan
    ) -> AsyncGenerator[ExecutionEvent, None]:
        async def ended() -> bool:
            return await self._has_ended(execution)

        async def started() -> dict[int, UUID]:
            if (run := await self._here(execution)) is not None:
                return {i: one.execution_id for i, one in list(run.executions.items())}
            known = await self._ask(_known_results, execution)
            return {i: one.execution_id for i, one in known.items() if one.started_at}

        async def result(index: int) -> ExecutionResult | None:
            if (run := await self._here(execution)) is not None:
                known = run.results.get(index)
                return known and run.executions[index].result_with_output()
            return (await self._ask(_known_results, execution)).get(index)

        return plan_events(plan, execution.id, self.config, started, result, ended)

    async def _here(self, execution: Execution) -> Any:
        async def look(services: Services) -> Any:
            return services.runs.get(execution.flow_run.id)

        return await self._ask(look)

    async def _has_ended(self, execution: Execution) -> bool:
        if self._runtime.is_running(execution.flow_run.id):
            return False
        found = await self._find(execution.flow_run.id)
        return (await self._ask(_status, found)).is_final

    async def _result_of(self, execution: Execution) -> ExecutionResult | None:
        if self._runtime.is_running(execution.flow_run.id):
            return None
        found = await self._find(execution.id)
        if not (await self._ask(_status, found)).is_final:
            return None
        return await self._ask(_result, found)

    async def _read_log(self, execution: Execution) -> str:
        path = anyio.Path(self.config.log_path(execution.id))
        if await path.exists():
            return await path.read_text(encoding="utf-8", errors="replace")
        return await self._ask(_api_logs, execution)

    async def _start(self, work: Work, idempotency_key: str | None) -> UUID:
        runtime = self._runtime
        flow_run = await self._ask(local_runs.create_run, work, idempotency_key)
        runtime.newest[work.item.id] = flow_run.id
        if runtime.is_running(flow_run.id) or flow_run.state_type is not StateType.PENDING:
            return flow_run.id
        await self._drive(work, flow_run)
        return flow_run.id

    async def resume(self, execution_id: UUID | str) -> UUID:
        """Runs what has not completed of an execution that has ended, here; returns its id.

        Raises:
            ExecutionNotFoundError: if the API knows no such execution.
            ExecutionNotCompletedError: if it has not ended.
        """
        execution = await self._find(execution_id)
        status = await self._ask(_status, execution)
        if not status.is_final:
            raise ExecutionNotCompletedError(execution.id, status)
        item = execution.plan or execution.request
        assert item is not None  # noqa: S101 (each run of ours has one)
        flow_run = await self._ask(local_runs.reopen_run, execution.flow_run.id)
        await self._drive(local_runs.Work(item), flow_run)
        return flow_run.id

    async def _drive(self, work: Work, flow_run: FlowRun) -> None:
        await self._runtime.drive(work, flow_run)
        if self._handlers:
            handler = FanOutHandler(list(self._handlers))
            self._runtime.deliver(self.stream(flow_run.id), handler)

    async def _find(self, execution_id: UUID | str) -> Execution:
        known = _uuid(execution_id)
        return await self._ask(_find, self._runtime.newest.get(known, known))

    async def _ask(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        return await self._runtime.ask(function, *args)


def _uuid(execution_id: UUID | str) -> UUID:
    if isinstance(execution_id, UUID):
        return execution_id
    try:
        return UUID(execution_id)
    except ValueError:
        raise ExecutionNotFoundError(execution_id) from None


async def _find(services: Services, wanted: UUID) -> Execution:
    return await history.find(services.client, wanted)


async def _status(services: Services, execution: Execution) -> ExecutionStatus:
    return await history.read_status(services.client, execution)


async def _result(services: Services, execution: Execution) -> ExecutionResult:
    return await history.read_result(services.client, execution)


async def _plan_result(services: Services, execution: Execution) -> PlanExecutionResult:
    return await history.read_plan_result(services.client, execution)


async def _known_results(services: Services, execution: Execution) -> dict[int, ExecutionResult]:
    return await history.read_results(services.client, execution.flow_run.id)


async def _api_logs(services: Services, execution: Execution) -> str:
    return await history.read_api_logs(services.client, execution)
