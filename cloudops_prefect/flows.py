"""The flows that are deployed: a plan, or a single command, as a run's parameter.

Annotations are evaluated here: Prefect may load this file under a name that is not its module's,
where it could not find what a string stands for.
"""

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, get_client
from prefect.client.schemas.objects import State

from cloudops_prefect.called_flows import CalledFlow, PlanFlow
from cloudops_prefect.cancellation import cancel_commands
from cloudops_prefect.compilation import (
    compile_command,
    compile_plan,
    current_flow_run,
    flow_options,
    refused,
    run_command_here,
    run_plan_here,
    run_with_services,
)
from cloudops_prefect.control import sigterm
from cloudops_prefect.delivery import until_delivered
from cloudops_prefect.errors import ValidationError
from cloudops_prefect.graph import Wiring
from cloudops_prefect.models import ExecutionPlan, ExecutionRequest
from cloudops_prefect.naming import RUN_COMMAND, RUN_PLAN
from cloudops_prefect.orphaned import outlive_the_worker
from cloudops_prefect.parameters import plan_of, request_of
from cloudops_prefect.plan_store import stored_parameters, with_stored_plan
from cloudops_prefect.presenting import present
from cloudops_prefect.services import Services
from cloudops_prefect.stranded import leave_if_taken
from cloudops_prefect.unbegun import tell_cancellation_at_exit

__all__ = ["compile_command", "compile_plan", "run_command", "run_plan"]

P = ParamSpec("P")
T = TypeVar("T", ExecutionPlan, ExecutionRequest)

# Prefect's engine loads this module before it asks the API whether the run may begin.
outlive_the_worker()
tell_cancellation_at_exit()


def _plan_flow(
    fn: Callable[P, Coroutine[Any, Any, Any]],
) -> Flow[P, Coroutine[Any, Any, Any]]:
    return PlanFlow(fn, name=RUN_PLAN, **flow_options())


@_plan_flow
async def run_plan(plan: ExecutionPlan) -> Any:
    """Runs a plan of commands.

    Args:
        plan: The commands, and the order in which they run.
    """
    await _heed_other_processes()
    return await _under_signals(partial(_run_plan, plan=plan), plan)


async def _run_plan(services: Services, plan: ExecutionPlan) -> State[Any]:
    # Inside: the services' task group would wrap the error.
    try:
        told = plan_of(await with_stored_plan(services.client, current_flow_run()))
        plan = told or await _tell(services, plan)
        await present(services, current_flow_run(), plan)
        await _heed_earlier_cancellation(services)
        return await run_plan_here(plan, Wiring.of_plan(plan))
    except ValidationError as error:
        return refused(error, plan, services.config)


def _command_flow(
    fn: Callable[P, Coroutine[Any, Any, Any]],
) -> Flow[P, Coroutine[Any, Any, Any]]:
    return CalledFlow(fn, name=RUN_COMMAND, **flow_options())


@_command_flow
async def run_command(request: ExecutionRequest) -> Any:
    """Runs one command.

    Args:
        request: The command, and how to run it.
    """
    await _heed_other_processes()
    return await _under_signals(partial(_run_command, request=request), request)


async def _run_command(services: Services, request: ExecutionRequest) -> State[Any]:
    # Inside: the services' task group would wrap the error.
    try:
        request = request_of(current_flow_run()) or await _tell(services, request)
        await present(services, current_flow_run(), request)
        await _heed_earlier_cancellation(services)
        return await run_command_here(request)
    except ValidationError as error:
        return refused(error, request, services.config)


async def _under_signals(
    run: Callable[[Services], Awaitable[State[Any]]], item: ExecutionPlan | ExecutionRequest
) -> State[Any]:
    async def run_until_sigterm(services: Services) -> State[Any]:
        with sigterm.cancels(services.control(current_flow_run().id)):
            return await run(services)

    return await run_with_services(run_until_sigterm, item)


async def _tell(services: Services, item: T) -> T:
    """Tells the API what a run is given whose caller had it as a future: Prefect sends its type."""
    parameters = await stored_parameters(services.client, item)
    await until_delivered(
        partial(services.client.update_flow_run, current_flow_run().id, parameters=parameters)
    )
    return item


async def _heed_other_processes() -> None:
    flow_run = current_flow_run()
    if flow_run.work_pool_name is not None:
        async with get_client() as client:
            await leave_if_taken(client, flow_run)


async def _heed_earlier_cancellation(services: Services) -> None:
    """Cancels a run, or commands of it, that were cancelled before its process had begun it.

    The server lets a run out of Cancelled, and the flow is told only that it is Running.
    """
    flow_run = current_flow_run()
    states = await services.client.read_flow_run_states(flow_run.id)
    before = [state for state in states if not state.is_running()]
    newest = max(before, key=lambda state: state.timestamp, default=None)
    if newest is not None and (newest.is_cancelled() or newest.is_cancelling()):
        services.control(flow_run.id).cancel()
    await cancel_commands(services.client, {flow_run.id: services.control(flow_run.id)})
