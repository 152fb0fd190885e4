"""`ExecutionEngine`: starts commands and plans, and answers for every execution the API knows."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload

import anyio

from cloudops_prefect import deployed_runs, executions, kept_logs, local_runs
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import (
    ExecutionIOError,
    ExecutionNotCompletedError,
)
from cloudops_prefect.events import EventHandler, FanOutHandler
from cloudops_prefect.execution import check_paths
from cloudops_prefect.graph import Wiring
from cloudops_prefect.local_api import ui_url
from cloudops_prefect.local_source import LocalSource
from cloudops_prefect.models import (
    CommandExecutionId,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionStatus,
    PlanExecutionId,
    require,
)
from cloudops_prefect.run_origin import RunOrigin
from cloudops_prefect.runtime import Runtime
from cloudops_prefect.sources import ApiSource, Ids
from cloudops_prefect.streaming import command_events, plan_events
from cloudops_prefect.work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from pathlib import Path
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun

    from cloudops_prefect.deployed_runs import Deployments
    from cloudops_prefect.history import Execution
    from cloudops_prefect.models import (
        ExecutionEvent,
        ExecutionResult,
        ExecutionSummary,
        PlanExecutionResult,
        StreamedEvent,
    )
    from cloudops_prefect.planfile import PlanFile
    from cloudops_prefect.sources import Source

T = TypeVar("T")
STATUS_INTERVAL_SECONDS = 0.25
"""Seconds between two looks at an execution that another process runs."""


class ExecutionEngine:
    """Runs commands and plans as Prefect flows, in this process or on the workers of a work pool.

    Prefect's API is where status, results and history are; the engine asks it each time. Without a
    configured API it uses the local server of the command line if that runs, else a temporary
    server. Leaving the engine's context, or the end of the event loop, cancels what still runs in
    this process and waits for it; what workers run goes on.
    Ids are those of Prefect's runs; the id of a request or plan means its newest execution.

    Args:
        config: What holds for every execution; on a worker, the worker's own settings do.
        deployments: The deployments whose runs the engine creates for workers to run; without
            them it runs everything in this process.
    """

    def __init__(
        self, config: ExecutionConfig | None = None, *, deployments: Deployments | None = None
    ) -> None:
        self.config = config or ExecutionConfig()
        self._deployments = deployments
        self._handlers: tuple[EventHandler, ...] = ()
        self._runtime = Runtime(self.config)

    def with_event_handler(self, handler: EventHandler) -> Self:
        """Return an engine that gives its events to `handler` too; they share all else."""
        other = type(self)(self.config, deployments=self._deployments)
        other._handlers = (*self._handlers, handler)  # noqa: SLF001
        other._runtime = self._runtime  # noqa: SLF001
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what runs, and wait until the processes are gone and the API knows it all."""
        await self._runtime.close()

    async def execute(
        self, request: ExecutionRequest, *, idempotency_key: str | None = None
    ) -> CommandExecutionId:
        """Starts a command and returns at once with the execution's id.

        Args:
            request: What to run.
            idempotency_key: A second call with the same key returns the first one's id.

        Raises:
            ValidationError: if the request is refused; nothing has been started.
            ExecutionIOError: if the API does not answer.
            ExecutionError: if there is no such deployment.
        """
        require(ExecutionRequest, request)
        request.validate(self.config)
        if self._deployments is None:
            check_paths(request)
        execution_id = await self._start(Work(request, self._origin()), idempotency_key)
        return CommandExecutionId(execution_id)

    async def execute_plan(
        self,
        plan: ExecutionPlan,
        *,
        idempotency_key: str | None = None,
        file: PlanFile | None = None,
    ) -> PlanExecutionId:
        """Start a plan and return at once with the execution's id.

        Args:
            plan: What to run.
            idempotency_key: A second call with the same key returns the first one's id.
            file: The file that the plan was read from, if `cloudops resume` is to note that it has
                changed since: a resume runs the plan as it was started.

        Raises:
            ValidationError: as `execute`.
            ExecutionIOError: as `execute`.
            ExecutionError: as `execute`.
        """
        require(ExecutionPlan, plan)
        plan.validate(self.config)
        wiring = Wiring.of_plan(plan)
        if self._deployments is None:
            for request, waits_for in zip(plan.commands, wiring.predecessors, strict=True):
                check_paths(request, later=bool(waits_for))
        execution_id = await self._start(Work(plan, self._origin(file)), idempotency_key)
        return PlanExecutionId(execution_id)

    async def get_status(self, execution_id: UUID | str) -> ExecutionStatus:
        """Returns where an execution stands."""
        return await self._ask(executions.read_status, await self._find(execution_id))

    async def get_result(self, execution_id: UUID | str) -> ExecutionResult:
        """Returns how an execution ended; a plan's in one result.

        Raises:
            ExecutionNotFoundError: if the API knows no such execution.
            ExecutionNotCompletedError: if it has not ended.
        """
        return await self._ask(executions.read_result, await self._find(execution_id))

    async def get_plan_result(self, execution_id: UUID | str) -> PlanExecutionResult:
        """Returns how a plan ended; raises as `get_result`."""
        return await self._ask(executions.read_plan_result, await self._find(execution_id))

    async def list_executions(
        self, *, limit: int = 100, offset: int = 0, status: ExecutionStatus | None = None
    ) -> list[ExecutionSummary]:
        """Returns executions of commands and plans, the newest first."""
        wanted = None if status is None else ExecutionStatus(status)

        return await self._ask(executions.read_list, limit, offset, wanted)

    async def cancel(self, execution_id: UUID | str) -> None:
        """Asks for the end of an execution; a second time does nothing.

        Raises:
            ExecutionNotFoundError: if the API knows no such execution.
            ExecutionNotRunningError: if it has ended.
        """
        here = self._newest(execution_id)
        if here == executions.parse_id(execution_id) and await self._ask(
            local_runs.cancel_here, here
        ):
            return
        try:
            execution = await self._find(execution_id)
        except ExecutionIOError:
            # While the API is away, what runs here is the newest that anybody knows.
            if not await self._ask(local_runs.cancel_here, here):
                raise
        else:
            await self._ask(executions.cancel_execution, execution)

    async def read_logs(self, execution_id: UUID | str) -> str:
        """Returns what an execution has printed: from its log here, else what the API has."""
        return await self._ask(kept_logs.read_log, await self._find(execution_id))

    def get_log_path(self, execution_id: UUID | str) -> Path:
        """Returns where an execution's log is on the machine that ran it, without looking."""
        return self.config.log_path(self._runtime.log_id(executions.parse_id(execution_id)))

    def ui_url(self, execution_id: UUID | str) -> str:
        """Returns the address of a run in Prefect's UI; empty if the API has no known UI."""
        return self._runtime.run_in_context(ui_url, "flow-run", self._newest(execution_id))

    @overload
    async def wait(
        self, execution_id: CommandExecutionId, *, timeout: float | None = None
    ) -> ExecutionResult: ...

    @overload
    async def wait(
        self, execution_id: PlanExecutionId, *, timeout: float | None = None
    ) -> PlanExecutionResult: ...

    @overload
    async def wait(
        self, execution_id: UUID | str, *, timeout: float | None = None
    ) -> ExecutionResult | PlanExecutionResult: ...

    async def wait(
        self, execution_id: UUID | str, *, timeout: float | None = None
    ) -> ExecutionResult | PlanExecutionResult:
        """Wait for the end of an execution and return how it ended.

        Args:
            execution_id: Which. Type checkers know the kind of the result if it comes from
                `execute`, `execute_plan` or `resume` of such an id.
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: if it has not ended by then; it says what is waited for.
        """
        with anyio.move_on_after(timeout):
            return await self._wait(execution_id)
        execution = await self._find(execution_id)
        why = await self._ask(executions.what_it_waits_for, execution)
        raise TimeoutError(f"execution {execution.id} has not ended within {timeout} s: {why}")

    async def _wait(self, execution_id: UUID | str) -> ExecutionResult | PlanExecutionResult:
        await self._runtime.until_ended(self._newest(execution_id))
        execution = await self._find(execution_id)
        while not (await self._ask(executions.read_status, execution)).is_final:
            await anyio.sleep(STATUS_INTERVAL_SECONDS)
            execution = await self._find(execution.id)
        if execution.index is None and execution.plan is not None:
            return await self._ask(executions.read_plan_result, execution)
        return await self._ask(executions.read_result, execution)

    @overload
    def stream(
        self, execution_id: UUID | str, *, unfinished_lines: Literal[False] = False
    ) -> AsyncGenerator[ExecutionEvent, None]: ...

    @overload
    def stream(
        self, execution_id: UUID | str, *, unfinished_lines: Literal[True]
    ) -> AsyncGenerator[StreamedEvent, None]: ...

    async def stream(
        self, execution_id: UUID | str, *, unfinished_lines: bool = False
    ) -> AsyncGenerator[StreamedEvent, None]:
        """Yields what an execution does, from its first event, live, until it has ended.

        Of a run of another process, the API's stored logs are the source: polled, so that each
        line comes once, in its stream's order, with or without a websocket.

        Args:
            execution_id: Which.
            unfinished_lines: Yield an `UnfinishedLine` between events where a line stays
                unfinished, such as a progress bar. It comes again as a whole line.
        """
        async with aclosing(self._stream(execution_id, unfinished=unfinished_lines)) as groups:
            async for events in groups:
                for event in events:
                    yield event

    async def _stream(
        self, execution_id: UUID | str, *, unfinished: bool = False
    ) -> AsyncGenerator[Iterable[StreamedEvent], None]:
        execution = await self._find(execution_id)
        source = self._source(execution, unfinished=unfinished)
        if execution.index is None and (plan := execution.plan) is not None:
            groups = plan_events(plan, execution.id, self.config, source)
        else:
            request = execution.request
            assert request is not None  # noqa: S101 (a single command's run has one)
            ids = Ids(execution.id, request.id)
            groups = command_events(request, ids, self.config, source, execution.index or 0)
        async with aclosing(groups):
            async for events in groups:
                yield events

    def _source(self, execution: Execution, *, unfinished: bool) -> Source:
        stored = ApiSource(self._ask, execution, self.config, unfinished=unfinished)
        flow_run_id = execution.flow_run.id
        if not self._runtime.is_running(flow_run_id):
            return stored
        is_running = partial(self._runtime.is_running, flow_run_id)
        find = partial(self._ask, executions.find_local_run, flow_run_id)
        return LocalSource(is_running, find, stored)

    @overload
    async def resume(self, execution_id: CommandExecutionId) -> CommandExecutionId: ...

    @overload
    async def resume(self, execution_id: PlanExecutionId) -> PlanExecutionId: ...

    @overload
    async def resume(self, execution_id: UUID | str) -> UUID: ...

    async def resume(self, execution_id: UUID | str) -> UUID:
        """Runs what has not completed of an execution that has ended; returns its id.

        The plan and its parameters are those that the execution was started with. A run that a
        worker has run goes back to the workers. A run of an engine runs here, in the directory that
        it was started in and with this process's environment, also when the UI's Retry has
        scheduled it again: no worker takes it.

        Raises:
            ExecutionNotFoundError: if the API knows no such execution.
            ExecutionNotCompletedError: if it has not ended.
            InvalidWorkingDirError: if the directory that it was started in does not exist here.
        """
        here = RunOrigin.here()
        execution = await self._find(execution_id)
        status = await self._ask(executions.read_status, execution)
        flow_run_id = execution.flow_run.id
        for_workers = await self._ask(executions.is_for_workers, execution)
        is_nobodys = not for_workers and deployed_runs.is_overdue(execution.flow_run)
        if not (status.is_final or is_nobodys):
            raise ExecutionNotCompletedError(execution.id, status)
        if for_workers:
            await self._ask(deployed_runs.retry_run, flow_run_id)
            self._follow(flow_run_id, elsewhere=True)
            return flow_run_id
        item = execution.plan or execution.request
        assert item is not None  # noqa: S101 (each run of ours has one)
        origin = RunOrigin.of_run(execution.flow_run)
        origin.check_directory()
        # Runs of earlier versions have no directory.
        labels = here.labels() if origin.directory is None else {}
        flow_run = await self._ask(local_runs.reopen_run, flow_run_id, labels)
        await self._drive(Work(item), flow_run)
        return flow_run_id

    def _origin(self, file: PlanFile | None = None) -> RunOrigin:
        is_local = self._deployments is None
        return RunOrigin.here(file) if is_local else RunOrigin.for_workers(file)

    async def _start(self, work: Work, idempotency_key: str | None) -> UUID:
        if self._deployments is not None:
            return await self._dispatch(self._deployments, work, idempotency_key)
        flow_run, is_new = await self._ask(local_runs.create_run, work, idempotency_key)
        # Whoever has created it runs it.
        if is_new:
            await self._drive(work, flow_run)
        else:
            self._runtime.remember(work, flow_run)
        return flow_run.id

    async def _dispatch(
        self, deployments: Deployments, work: Work, idempotency_key: str | None
    ) -> UUID:
        flow_run = await self._ask(deployed_runs.create_run, deployments, work, idempotency_key)
        self._runtime.remember(work, flow_run)
        if not self._runtime.is_told(flow_run.id):
            self._follow(flow_run.id, elsewhere=True)
        return flow_run.id

    async def _drive(self, work: Work, flow_run: FlowRun) -> None:
        try:
            self._runtime.remember(work, flow_run)
            await self._runtime.drive(work, flow_run)
        except Exception as error:
            await self._ask(local_runs.end_despite, work, flow_run.id, error)
            raise
        self._follow(flow_run.id)

    def _follow(self, flow_run_id: UUID, *, elsewhere: bool = False) -> None:
        """Tells the handlers what a run does from now on."""
        if self._handlers:
            handler = FanOutHandler(list(self._handlers))
            # Without unfinished lines, all are events.
            events = cast("AsyncGenerator[Iterable[ExecutionEvent]]", self._stream(flow_run_id))
            self._runtime.deliver(flow_run_id, events, handler, elsewhere=elsewhere)

    async def _find(self, execution_id: UUID | str) -> Execution:
        wanted = executions.parse_id(execution_id)
        return await self._ask(executions.find_execution, wanted, self._runtime.newest.get(wanted))

    def _newest(self, execution_id: UUID | str) -> UUID:
        known = executions.parse_id(execution_id)
        return self._runtime.newest.get(known, known)

    async def _ask(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        return await self._runtime.ask(function, *args)
