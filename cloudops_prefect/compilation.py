"""Plans and single commands as Prefect flows without parameters, for whoever calls them here."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
from prefect import get_client
from prefect.context import FlowRunContext
from prefect.events.related import related_resources_from_run_context
from prefect.settings import get_current_settings
from prefect.states import Failed, Suspended

from cloudops_prefect.api_errors import api_complaint
from cloudops_prefect.artifacts import PlanProgress, results_table
from cloudops_prefect.called_flows import CompiledFlow
from cloudops_prefect.control import sigterm
from cloudops_prefect.crashes import shows_that_it_lives
from cloudops_prefect.delivery import until_delivered
from cloudops_prefect.errors import ValidationError
from cloudops_prefect.event_delivery import event_router
from cloudops_prefect.graph import Wiring
from cloudops_prefect.left_results import tell_left_results_of
from cloudops_prefect.models import (
    ExecutionPlan,
    ExecutionRequest,
    PlanExecutionResult,
    require,
)
from cloudops_prefect.naming import RUN_COMMAND, RUN_PLAN, shown_text, with_name
from cloudops_prefect.plan_run import PlanRun
from cloudops_prefect.presenting import present
from cloudops_prefect.records import read_results
from cloudops_prefect.run_origin import run_directory
from cloudops_prefect.services import current_services, open_here
from cloudops_prefect.states import (
    cancelled_state,
    command_state_of,
    plan_state_of,
    unforeseen_state,
)
from cloudops_prefect.unbegun import has_begun
from cloudops_prefect.unforeseen_errors import is_unforeseen, reason_of
from cloudops_prefect.unrecorded import completed_without_record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence

    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.models import ExecutionResult
    from cloudops_prefect.services import Services

logger = logging.getLogger("cloudops_prefect.compilation")


def flow_options() -> dict[str, Any]:
    """Returns what the flows of this package have in common.

    Results go to the API as `records`; Prefect's own persistence would write them to a directory
    that no other machine can read. A storage that is named spares each run a question to the API.
    """
    storage = Path(get_current_settings().results.local_storage_path)
    return {"persist_result": False, "result_storage": storage}


def compile_plan(
    plan: ExecutionPlan, config: ExecutionConfig | None = None
) -> Flow[[], Coroutine[Any, Any, PlanExecutionResult]]:
    """Turns a plan into a Prefect flow without parameters whose task runs are the plan's commands.

    Calling the flow runs the plan and returns its `PlanExecutionResult`; a plan that did not
    complete raises an error that has it as `result`. The edges between the task runs are the
    plan's. As any run's at the API, the plan is a parameter of the run, and not secret.

    Raises:
        ValidationError: if the plan is refused.
    """
    require(ExecutionPlan, plan)
    wiring = Wiring.of_plan(plan)

    async def run() -> Any:
        return await _run(plan, config, partial(run_plan_here, plan, wiring))

    return CompiledFlow(run, plan, name=RUN_PLAN, **flow_options())


def compile_command(
    request: ExecutionRequest, config: ExecutionConfig | None = None
) -> Flow[[], Coroutine[Any, Any, ExecutionResult]]:
    """Turns a request into a Prefect flow without parameters, of one task run."""
    require(ExecutionRequest, request)

    async def run() -> Any:
        return await _run(request, config, partial(run_command_here, request))

    return CompiledFlow(run, request, name=RUN_COMMAND, **flow_options())


async def _run(
    item: ExecutionPlan | ExecutionRequest,
    config: ExecutionConfig | None,
    run_here: Callable[[], Awaitable[State[Any]]],
) -> State[Any]:
    async def run(services: Services) -> State[Any]:
        # Inside: the services' task group would wrap the error.
        try:
            await present(services, current_flow_run(), item)
            return await run_here()
        except ValidationError as error:
            return refused(error, item, services.config)

    return await run_with_services(run, item, config)


async def run_with_services(
    run: Callable[[Services], Awaitable[State[Any]]],
    item: ExecutionPlan | ExecutionRequest,
    config: ExecutionConfig | None = None,
) -> State[Any]:
    """Run what a flow does, and cancel the run if its caller is interrupted, as by Ctrl-C.

    Prefect's engine calls a run crashed whose asyncio task is cancelled, and leaves its commands
    no time to stop. So the run has a task of its own; the caller's goes on once the API knows that
    the run was cancelled, and Prefect leaves a final state as it is.

    Any other error that is raised becomes the state in which the run ends.
    """
    flow_run = current_flow_run()
    opened: list[Services] = []

    async def run_and_remember_services() -> State[Any]:
        state: State[Any] | None = None
        try:
            async with current_services(config) as services:
                opened.append(services)
                state = await run(services)
        except BaseException as error:
            if not is_unforeseen(error):
                raise
            logger.exception("Run %s could not go on", flow_run.id)
            # How it has ended is known, whatever becomes of the services.
            state = state or unforeseen_state(_shown_reason(error, item, config))
        return state

    # An engine cancels its runs itself, and a worker sends a signal.
    if open_here() is not None or not _is_awaited(flow_run):
        return await run_and_remember_services()
    task = asyncio.create_task(run_and_remember_services())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await _cancel_run(flow_run, task, opened)
        raise


async def _cancel_run(
    flow_run: FlowRun, task: asyncio.Task[State[Any]], opened: Sequence[Services]
) -> None:
    """Cancel a run, wait until its task has ended, and report the run's end."""
    for services in opened:
        services.control(flow_run.id).cancel()
    await _wait_for_end(task)
    has_failed = not task.cancelled() and task.exception() is not None
    if has_failed or _has_timed_out(flow_run):
        # Prefect's engine reports these; a run that timed out would be Cancelled first.
        return
    # A second Ctrl-C cancels the task as well, with the commands that it was stopping.
    state = cancelled_state() if task.cancelled() else task.result()
    async with get_client() as client:
        report = client.set_flow_run_state
        await until_delivered(partial(report, flow_run.id, state, force=True))
    flow_run.state = state


async def _wait_for_end(task: asyncio.Task[State[Any]]) -> None:
    """Wait until a task has ended, also if the caller is cancelled again."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])


def _has_timed_out(flow_run: FlowRun) -> bool:
    """Return whether it is Prefect's own timeout of the flow that interrupts it."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow.timeout_seconds is None:
        return False
    began = flow_run.start_time or datetime.now(UTC)
    return (datetime.now(UTC) - began).total_seconds() >= context.flow.timeout_seconds


def _shown_reason(
    error: BaseException, item: ExecutionPlan | ExecutionRequest, config: ExecutionConfig | None
) -> str:
    complaint = api_complaint(error) if isinstance(error, Exception) else None
    return shown_text(complaint or reason_of(error), _requests_of(item), config)


def _requests_of(item: ExecutionPlan | ExecutionRequest) -> list[ExecutionRequest]:
    return item.commands if isinstance(item, ExecutionPlan) else [item]


def refused(
    error: ValidationError, item: ExecutionPlan | ExecutionRequest, config: ExecutionConfig
) -> State[Any]:
    """Return the state of a run whose plan or request is refused, with the way out.

    The message has no secrets.
    """
    message = shown_text(str(error), _requests_of(item), config)
    if error.hint:
        is_on_worker = current_flow_run().work_pool_name is not None
        where = " in the environment of the worker" if is_on_worker else ""
        message = f"{message}; {error.hint}{where}"
    return Failed(message=message, data=error)


async def run_plan_here(plan: ExecutionPlan, wiring: Wiring) -> State[Any]:
    """Runs a plan in the flow run that calls this; returns the state in which that is to end."""
    async with current_services() as services:
        plan.validate(services.config)
        run = await _prepare(wiring, services, env_from=plan.env_from)
        return await _ended(run, services, partial(_run_plan, plan, run, services))


async def _run_plan(plan: ExecutionPlan, run: PlanRun, services: Services) -> State[Any]:
    started = datetime.now(UTC)
    progress = PlanProgress(services.client, run.flow_run_id, run.results, len(plan.commands))

    async def show_results() -> None:
        table = results_table(plan, run.flow_run_id, run.in_order(), services.config)
        await until_delivered(partial(services.client.create_artifact, table))

    with _under_control(run, services):
        async with progress.followed():
            await run.run()
        if run.suspended:
            return await _suspend(run, services)
        artifacts = {"the progress artifact": progress.show, "the table artifact": show_results}
        await _deliver(run, services, artifacts)
    awaited = _is_awaited(current_flow_run())
    results = zip(run.in_order(with_output=awaited), plan.commands, strict=True)
    result = PlanExecutionResult.of(
        plan,
        run.flow_run_id,
        [with_name(one, request, services.config) for one, request in results],
        total_duration=datetime.now(UTC) - started,
        cancelled=run.control.cancelled,
    )
    return plan_state_of(result, awaited=awaited, note=run.note)


async def run_command_here(request: ExecutionRequest) -> State[Any]:
    """Runs one command in the flow run that calls this; returns as `run_plan_here`."""
    async with current_services() as services:
        request.validate(services.config)
        run = await _prepare(Wiring.of_request(request), services, single=True)
        return await _ended(run, services, partial(_run_command, request, run, services))


async def _run_command(request: ExecutionRequest, run: PlanRun, services: Services) -> State[Any]:
    with _under_control(run, services):
        await run.run()
        if run.suspended:
            return await _suspend(run, services)
        await _deliver(run, services)
    (ended,) = run.in_order(with_output=_is_awaited(current_flow_run()))
    result = with_name(ended, request, services.config)
    return command_state_of(result, request.effective_timeout_ms(services.config), run.note)


async def _ended(
    run: PlanRun, services: Services, go: Callable[[], Awaitable[State[Any]]]
) -> State[Any]:
    """Return the state in which a run is to end, also if something unforeseen ends it."""
    try:
        state = await go()
    except BaseException as error:
        if not is_unforeseen(error):
            raise
        reason = await run.end_all_despite(error)
        await _deliver(run, services)
        state = unforeseen_state(reason)
    if state.is_final():
        run.final_state = state
    return state


async def _deliver(
    run: PlanRun,
    services: Services,
    artifacts: Mapping[str, Callable[[], Awaitable[object]]] = MappingProxyType({}),
) -> None:
    """Wait until the API has the output, the results and the states of the commands that ended.

    Args:
        run: The run; what can't be delivered is noted in it.
        services: What delivers it.
        artifacts: Functions that deliver something besides, by what they deliver.
    """

    async def deliver(what: str, function: Callable[[], Awaitable[object]]) -> None:
        with run.noting_errors(what):
            await function()

    async def deliver_results() -> None:
        if (complaint := await services.publisher.flush(run.flow_run_id)) is not None:
            run.add_note(complaint)

    until_sent = partial(services.task_runs.until_sent, run.flow_run_id)
    async with anyio.create_task_group() as tasks:
        for what, function in artifacts.items():
            tasks.start_soon(deliver, what, function)
        tasks.start_soon(deliver, "the results", deliver_results)
        tasks.start_soon(deliver, "the states of the commands", until_sent)


async def _suspend(run: PlanRun, services: Services) -> State[Any]:
    """End an attempt at a run that somebody has suspended; Prefect leaves the run Suspended."""
    await _deliver(run, services)
    return Suspended()


@contextmanager
def _under_control(run: PlanRun, services: Services) -> Generator[None]:
    """Deliver the run's events; unless an engine does so, heed SIGTERM and hold the run's lock."""
    flow_run = current_flow_run()
    with event_router.routed(flow_run.id, services.task_runs.events) as run.routed:
        if flow_run.id in services.driven:
            yield
            return
        alive = shows_that_it_lives(flow_run.id, flow_run.run_count, services.config)
        with alive, sigterm.cancels(run.control):
            has_begun()
            yield


async def _prepare(
    wiring: Wiring,
    services: Services,
    *,
    single: bool = False,
    env_from: Sequence[str] = (),
) -> PlanRun:
    flow_run = current_flow_run()
    # Read before an outage can lose the events that are to carry it; Prefect keeps what it reads.
    with suppress(Exception):
        await related_resources_from_run_context(services.client)
    return PlanRun(
        wiring,
        flow_run.id,
        services,
        attempt=max(flow_run.run_count, 1),
        earlier=await _earlier_results(wiring, services),
        directory=run_directory(flow_run, is_driven=flow_run.id in services.driven),
        single=single,
        env_from=env_from,
    )


async def _earlier_results(wiring: Wiring, services: Services) -> dict[int, ExecutionResult]:
    flow_run = current_flow_run()
    # Prefect does not count the resumption of a suspended run, which only a deployment's can be.
    may_be_resumed = flow_run.deployment_id is not None and flow_run.id not in services.driven
    if flow_run.run_count <= 1 and not may_be_resumed:
        return {}
    # A worker that has told of the death knows nothing of these.
    await tell_left_results_of(services.client, services.config, flow_run.id)
    results = await read_results(services.client, flow_run.id)
    completed = await completed_without_record(services.client, flow_run, wiring.requests, results)
    return results | completed


def current_flow_run() -> FlowRun:
    """Returns the flow run that calls this."""
    context = FlowRunContext.get()
    assert context is not None, "Prefect sets it before it calls a flow"  # noqa: S101
    assert context.flow_run is not None  # noqa: S101
    return context.flow_run


def _is_awaited(flow_run: FlowRun) -> bool:
    # A run of a deployment, an engine's included, has no caller that takes what it returns.
    return flow_run.deployment_id is None
