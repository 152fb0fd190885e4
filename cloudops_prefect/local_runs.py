"""Runs in the engine's own process: created at the API, run here, cancelled from here or there."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from functools import partial
from http.client import NOT_FOUND
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import anyio
from prefect.client.schemas.objects import StateDetails
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.flow_engine import run_flow_async
from prefect.states import Pending

from cloudops_prefect.api_errors import api_complaint
from cloudops_prefect.api_timeout import given_up, unless_unheard
from cloudops_prefect.crashes import shows_that_it_lives
from cloudops_prefect.delivery import until_delivered
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.naming import LOCAL, shown_text
from cloudops_prefect.states import cancelled_state, status_of, unforeseen_state
from cloudops_prefect.unforeseen_errors import is_unforeseen, reason_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

    from cloudops_prefect.control import RunControl
    from cloudops_prefect.services import Services
    from cloudops_prefect.work import Work

ENDING_INTERVAL = 0.02

logger = logging.getLogger("cloudops_prefect.engine")


async def create_run(
    services: Services, work: Work, idempotency_key: str | None
) -> tuple[FlowRun, bool]:
    """Create the run at the API, unless the key has done so before; return whether the run is new.

    It belongs to a deployment, since Prefect's UI offers Cancel and Retry for no other run. It is
    new if its state has our transition id: the API does not say so, and a second engine with the
    same key would run it too. A caller that is cancelled meanwhile leaves no run Pending for ever.
    """
    ours = StateDetails(transition_id=uuid4())
    pending = Pending(state_details=ours)
    creating = asyncio.create_task(_create(services, work, pending, idempotency_key))
    try:
        flow_run = await asyncio.shield(creating)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            flow_run = await creating
            if _is_made_with(ours, flow_run):
                await services.client.set_flow_run_state(flow_run.id, cancelled_state(), force=True)
        raise
    return flow_run, _is_made_with(ours, flow_run)


async def _create(
    services: Services, work: Work, state: State[Any], idempotency_key: str | None
) -> FlowRun:
    known = services.local_deployments.get(work.flow_name)
    if known is not None:
        try:
            return await work.create_run(services, known, state, idempotency_key)
        except PrefectHTTPStatusError as error:
            # Somebody may have deleted it since.
            if error.response.status_code != NOT_FOUND:
                raise
    deployment_id = await _local_deployment(services.client, work.flow_name)
    services.local_deployments[work.flow_name] = deployment_id
    return await work.create_run(services, deployment_id, state, idempotency_key)


def _is_made_with(details: StateDetails, flow_run: FlowRun) -> bool:
    state = flow_run.state
    return state is not None and state.state_details.transition_id == details.transition_id


async def reopen_run(services: Services, flow_run_id: UUID, labels: Mapping[str, str]) -> FlowRun:
    """Make a run that has ended pending again, with additional labels."""
    if labels:
        await services.client.update_flow_run_labels(flow_run_id, {**labels})
    await services.client.set_flow_run_state(flow_run_id, Pending(), force=True)
    return await services.client.read_flow_run(flow_run_id)


async def drive(services: Services, work: Work, flow_run: FlowRun) -> None:
    """Run what was created, to its end."""
    services.driven.add(flow_run.id)
    services.line.join(flow_run.id)
    control = services.control(flow_run.id)
    try:
        with shows_that_it_lives(flow_run.id, flow_run.run_count + 1, services.config):
            async with unless_unheard(services.client, flow_run.id, control):
                await _run_and_report_end(services, work, flow_run, control)
    except BaseException as error:
        if not is_unforeseen(error):
            raise
        # Its sign of life is left, so that the next engine of this machine reports its end.
        if flow_run.id in given_up:
            services.task_runs.forget(flow_run.id)
            logger.warning("Run %s is left as it is: %s", flow_run.id, error)
        else:
            await end_despite(services, work, flow_run.id, error)
    finally:
        services.driven.discard(flow_run.id)
        services.line.leave(flow_run.id)
        services.controls.pop(flow_run.id, None)
        services.runs.pop(flow_run.id, None)


async def end_despite(
    services: Services, work: Work, flow_run_id: UUID, error: BaseException
) -> None:
    """Report the end of a run around which something unforeseen was raised, unless it is known."""
    logger.error("Run %s could not be brought to its end", flow_run_id, exc_info=error)
    services.unreported[flow_run_id] = _state_despite(services, work, error)
    try:
        await report_again(services, flow_run_id)
    except BaseException as again:
        if not is_unforeseen(again):
            raise
        logger.exception("The end of run %s could not be reported", flow_run_id)


async def report_again(services: Services, flow_run_id: UUID) -> None:
    """Report the end of a run of this process if that could not be reported before."""
    if (state := services.unreported.get(flow_run_id)) is None:
        return
    flow_run = await services.client.read_flow_run(flow_run_id)
    if not status_of(flow_run.state).is_final:
        await services.client.set_flow_run_state(flow_run_id, state, force=True)
    services.unreported.pop(flow_run_id, None)


def _state_despite(services: Services, work: Work, error: BaseException) -> State[Any]:
    return unforeseen_state(shown_text(reason_of(error), work.requests, services.config))


async def _run_and_report_end(
    services: Services, work: Work, flow_run: FlowRun, control: RunControl
) -> None:
    """Run what was created, and report its end where Prefect's engine has not.

    Without that, a run that is cancelled before it begins would never end. The API also rejects
    that a run completes which is being cancelled.
    """
    try:
        async with _slot(services, work, flow_run.id, control):
            reported = None if control.cancelled else await _run_flow(services, work, flow_run)
    except BaseException as error:
        if not is_unforeseen(error):
            raise
        missing = _state_after_error(services, work, flow_run.id, control, error)
    else:
        has_ended = reported is not None and reported.is_final()
        missing = None if has_ended else cancelled_state()
    if missing is not None:
        report = services.client.set_flow_run_state
        await until_delivered(partial(report, flow_run.id, missing, force=True))


def _state_after_error(
    services: Services, work: Work, flow_run_id: UUID, control: RunControl, error: BaseException
) -> State[Any]:
    """Return the final state of a run whose engine raises an error, as when the API fails.

    A run whose commands have ended keeps their outcome, and a cancelled one is no crash.
    """
    run = services.runs.get(flow_run_id)
    if run is not None and run.final_state is not None:
        return run.final_state
    if run is None and control.cancelled:
        return cancelled_state()
    logger.error("Run %s could not be brought to its end", flow_run_id, exc_info=error)
    return _state_despite(services, work, error)


@asynccontextmanager
async def _slot(
    services: Services, work: Work, flow_run_id: UUID, control: RunControl
) -> AsyncGenerator[None]:
    """Lets a single command wait for its turn; each command of a plan does so by itself."""
    if isinstance(work.item, ExecutionPlan):
        yield
        return
    with control.waiting():
        await services.line.turn(flow_run_id)
        await services.slots.acquire_on_behalf_of(flow_run_id)
    try:
        yield
    finally:
        if flow_run_id in services.slots.statistics().borrowers:
            services.slots.release_on_behalf_of(flow_run_id)


async def _run_flow(services: Services, work: Work, flow_run: FlowRun) -> State[Any]:
    """Run the flow in Prefect's engine; return the state that the engine has reported last.

    While the API does not answer and nothing has begun, start again: Prefect's engine raises after
    a few attempts, and the run would end as crashed.
    """
    # For a run of a deployment Prefect's `observe_flow_run_suspension` blocks the event loop while
    # a thread subscribes, and a suspended run of this process could never be resumed.
    flow_run = flow_run.model_copy(update={"deployment_id": None})
    delays = chain((0.5, 1, 2, 5), repeat(10))
    while True:
        try:
            flow = work.compiled(services)
            return cast("State[Any]", await run_flow_async(flow, flow_run, {}, return_type="state"))
        except Exception as error:
            begun = flow_run.id in services.runs
            if begun or api_complaint(error) is None or services.control(flow_run.id).cancelled:
                raise
            delay = next(delays)
            logger.debug("The API doesn't answer, trying again in %s s: %s", delay, error)
            await anyio.sleep(delay)


async def cancel_here(services: Services, execution_id: UUID) -> bool:
    """Cancels what runs in this process without the API, which may be away; says whether it did."""
    control, run = services.controls.get(execution_id), services.runs.get(execution_id)
    if control is not None and (run is None or run.final_state is None):
        control.cancel()
        return True
    for control in services.controls.values():
        if control.runs(execution_id):
            control.cancel_command(execution_id)
            return True
    return False


async def stop_all(services: Services) -> None:
    """Cancels all runs of this process, and waits for their end and until the API knows of it."""
    for control in [*services.controls.values()]:
        control.cancel()
    while services.driven:
        await anyio.sleep(ENDING_INTERVAL)
    try:
        await services.task_runs.until_recorded()
    except Exception:
        logger.exception("The ends of task runs may be missing at the API")


async def _local_deployment(client: PrefectClient, flow_name: str) -> UUID:
    try:
        return (await client.read_deployment_by_name(f"{flow_name}/{LOCAL}")).id
    except ObjectNotFound:
        flow_id = await client.create_flow_from_name(flow_name)
        return await client.create_deployment(
            flow_id,
            name=LOCAL,
            description="Runs that an engine runs in its own process",
            entrypoint=f"cloudops_prefect.flows.{flow_name.replace('-', '_')}",
            pull_steps=[],
            enforce_parameter_schema=False,
        )
