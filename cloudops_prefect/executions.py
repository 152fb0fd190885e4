"""Find, read and cancel one execution with the services of an engine's thread."""

from __future__ import annotations

from http.client import NOT_FOUND
from typing import TYPE_CHECKING
from uuid import UUID

from httpx import HTTPStatusError
from prefect.states import Cancelling

from cloudops_prefect import deployed_runs, execution_list, history, local_runs
from cloudops_prefect.dead_runs import tell_crash, tell_crashes
from cloudops_prefect.errors import ExecutionNotFoundError, ExecutionNotRunningError
from cloudops_prefect.tasks import create_task_run

if TYPE_CHECKING:
    from cloudops_prefect.history import Execution
    from cloudops_prefect.models import (
        ExecutionResult,
        ExecutionStatus,
        ExecutionSummary,
        PlanExecutionResult,
    )
    from cloudops_prefect.plan_run import PlanRun
    from cloudops_prefect.services import Services


def parse_id(execution_id: UUID | str) -> UUID:
    """Return an id as a UUID.

    Raises:
        ExecutionNotFoundError: It is none.
    """
    if isinstance(execution_id, UUID):
        return execution_id
    try:
        return UUID(execution_id)
    except ValueError:
        raise ExecutionNotFoundError(execution_id) from None


async def find_execution(services: Services, wanted: UUID, known: UUID | None) -> Execution:
    """Find an execution, with the end of its process if that has died here.

    Args:
        services: The services of the engine.
        wanted: The id of an execution, a request or a plan.
        known: The newest execution of that id that the engine has started, None if it knows none.
    """
    execution = await history.find(services.client, wanted, known)
    unreported = execution.flow_run.id in services.unreported
    if unreported:
        await local_runs.report_again(services, execution.flow_run.id)
    if unreported or await tell_crash(services.client, services.config, execution.flow_run):
        execution = await history.find(services.client, wanted, known)
    deployed_runs.look_after(services, execution.flow_run)
    return execution


async def find_local_run(services: Services, flow_run_id: UUID) -> PlanRun | None:
    """Return a run that goes on in this process, None before it has begun and after its end."""
    return services.runs.get(flow_run_id)


async def read_status(services: Services, execution: Execution) -> ExecutionStatus:
    """Return the status of an execution."""
    return await history.read_status(services.client, execution)


async def read_result(services: Services, execution: Execution) -> ExecutionResult:
    """Return the result of an execution that has ended; see `history.read_result`."""
    return await history.read_result(services.client, execution)


async def read_plan_result(services: Services, execution: Execution) -> PlanExecutionResult:
    """Return the result of a plan that has ended; see `history.read_plan_result`."""
    return await history.read_plan_result(services.client, execution)


async def what_it_waits_for(services: Services, execution: Execution) -> str:
    """Return what an execution that has not ended waits for, as a sentence part."""
    return await deployed_runs.what_it_waits_for(services.client, execution.flow_run)


async def is_for_workers(services: Services, execution: Execution) -> bool:
    """Return whether workers run an execution, and not an engine."""
    return await deployed_runs.is_for_workers(services.client, execution.flow_run)


async def cancel_execution(services: Services, execution: Execution) -> None:
    """Cancel an execution here, or ask the process that runs it to.

    Raises:
        ExecutionNotRunningError: It has ended.
    """
    status = await history.read_status(services.client, execution)
    if status.is_final:
        raise ExecutionNotRunningError(execution.id, status)
    is_whole = execution.index is None or execution.plan is None
    wanted = execution.flow_run.id if is_whole else execution.id
    if await local_runs.cancel_here(services, wanted):
        return
    if (control := services.controls.get(execution.flow_run.id)) is not None:
        control.cancel_command(execution.id)
    elif is_whole:
        await deployed_runs.cancel_run(services, execution.flow_run)
    else:
        await _ask_to_cancel(services, execution)


async def _ask_to_cancel(services: Services, execution: Execution) -> None:
    """Ask the process that runs a plan to cancel one of its commands."""
    client = services.client
    try:
        await client.set_task_run_state(execution.id, Cancelling(), force=True)
    except HTTPStatusError as error:
        request = execution.request
        if error.response.status_code != NOT_FOUND or request is None:
            raise
        # The API has no task run of a command whose turn has not come.
        await create_task_run(
            client, request, execution.flow_run.id, execution.id, Cancelling(), services.config
        )


async def read_list(
    services: Services, limit: int, offset: int, status: ExecutionStatus | None
) -> list[ExecutionSummary]:
    """Return a page of executions, with the ends of processes that have died here."""
    await tell_crashes(services.client, services.config)
    return await execution_list.read_list(
        services.client, limit=limit, offset=offset, status=status
    )
