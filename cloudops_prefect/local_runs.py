"""Runs in the engine's own process: created at the API, run here, cancelled from here or there."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from http.client import NOT_FOUND
from itertools import chain, repeat
from typing import TYPE_CHECKING

import anyio
from httpx import HTTPStatusError
from prefect.exceptions import ObjectNotFound
from prefect.flow_engine import run_flow_async
from prefect.states import Cancelled, Cancelling, Crashed, Pending

from cloudops_prefect import deployed_runs, recording
from cloudops_prefect.api_errors import api_complaint
from cloudops_prefect.crashes import shows_that_it_lives
from cloudops_prefect.errors import ExecutionCancelledError, ExecutionNotRunningError
from cloudops_prefect.history import read_status
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.naming import LOCAL, shown_name
from cloudops_prefect.publishing import until_delivered
from cloudops_prefect.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from cloudops_prefect.control import RunControl
    from cloudops_prefect.history import Execution
    from cloudops_prefect.services import Services
    from cloudops_prefect.work import Work

ENDING_INTERVAL = 0.02

logger = logging.getLogger("cloudops_prefect.engine")


async def create_run(services: Services, work: Work, idempotency_key: str | None) -> FlowRun:
    """Creates the run at the API; Prefect's UI cancels only runs that belong to a deployment."""
    deployment_id = await _local_deployment(services.client, work.flow_name)
    return await work.create_run(services, deployment_id, Pending(), idempotency_key)


async def reopen_run(services: Services, flow_run_id: UUID) -> FlowRun:
    """Takes a run that has ended back to where it can be run again."""
    await services.client.set_flow_run_state(flow_run_id, Pending(), force=True)
    return await services.client.read_flow_run(flow_run_id)


async def drive(services: Services, work: Work, flow_run: FlowRun) -> None:
    """Runs what was created, to its end."""
    services.driven.add(flow_run.id)
    services.line.join(flow_run.id)
    control = services.control(flow_run.id)
    try:
        with shows_that_it_lives(flow_run.id, flow_run.run_count + 1, services.config):
            await _run_to_its_end(services, work, flow_run, control)
    finally:
        services.driven.discard(flow_run.id)
        services.line.leave(flow_run.id)
        services.controls.pop(flow_run.id, None)
        if (run := services.runs.pop(flow_run.id, None)) is not None:
            services.unrecorded.update({end.task_run_id: end for end in run.ends.values()})


async def _run_to_its_end(
    services: Services, work: Work, flow_run: FlowRun, control: RunControl
) -> None:
    try:
        async with _slot(services, work, flow_run.id, control):
            if not control.cancelled:
                await _run(services, work, flow_run)
                return
            final = Cancelled(message=str(ExecutionCancelledError()))
    except Exception as error:
        run = services.runs.get(flow_run.id)
        if run is None or run.final_state is None:
            logger.exception("Run %s could not be brought to its end", flow_run.id)
            final = Crashed(message=f"the run could not be brought to its end: {error!r}")
        else:
            final = run.final_state
    await until_delivered(
        partial(services.client.set_flow_run_state, flow_run.id, final, force=True)
    )


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


async def _run(services: Services, work: Work, flow_run: FlowRun) -> None:
    # For a run of a deployment Prefect has the event loop wait for a thread that subscribes to its
    # suspension, and for the thread's end; nobody could resume a run of this process.
    flow_run = flow_run.model_copy(update={"deployment_id": None})
    for delay in chain((0.5, 1, 2, 5), repeat(10)):
        try:
            await run_flow_async(
                work.compiled(services), flow_run=flow_run, parameters={}, return_type="state"
            )
        except Exception as error:
            begun = flow_run.id in services.runs
            if begun or api_complaint(error) is None or services.control(flow_run.id).cancelled:
                raise
            logger.debug("The API doesn't answer, trying again in %s s: %s", delay, error)
            await anyio.sleep(delay)
        else:
            return


async def cancel_here(services: Services, flow_run_id: UUID, task_run_id: UUID | None) -> bool:
    """Cancels a run of this process, or one command of it, and says whether it was here."""
    control = services.controls.get(flow_run_id)
    if control is None:
        return False
    if task_run_id is None:
        control.cancel()
        return True
    control.cancel_command(task_run_id)
    return True


async def cancel(services: Services, execution: Execution) -> None:
    """Cancels an execution here, or asks whoever runs it to.

    Raises:
        ExecutionNotRunningError: if it has ended.
    """
    status = await read_status(services.client, execution)
    if status.is_final:
        raise ExecutionNotRunningError(execution.id, status)
    command = None if execution.index is None else execution.id
    if await cancel_here(services, execution.flow_run.id, command):
        return
    if command is None:
        await deployed_runs.cancel_run(services, execution.flow_run)
    else:
        await _ask_to_cancel(services, execution)


async def _ask_to_cancel(services: Services, execution: Execution) -> None:
    """Leaves word for whoever runs a plan that one of its commands is to be cancelled."""
    client = services.client
    try:
        await client.set_task_run_state(execution.id, Cancelling(), force=True)
    except HTTPStatusError as error:
        request = execution.request
        if error.response.status_code != NOT_FOUND or request is None:
            raise
        # The API has no task run of a command whose turn has not come.
        await client.create_task_run(
            TASKS[request.command.type],
            execution.flow_run.id,
            dynamic_key=str(execution.id),
            id=execution.id,
            name=shown_name(request, services.config),
            state=Cancelling(),
        )


async def stop_all(services: Services) -> None:
    """Cancels all runs of this process, and waits for their end and until the API knows of it."""
    for control in [*services.controls.values()]:
        control.cancel()
    while services.driven:
        await anyio.sleep(ENDING_INTERVAL)
    await recording.until_recorded(services.client, services.unrecorded)


async def forget_recorded(services: Services) -> None:
    """Keeps in mind only those ended task runs that the API has not recorded."""
    await recording.forget_recorded(services.client, services.unrecorded)


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
