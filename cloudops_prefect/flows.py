"""Plans and single commands as Prefect flows.

Annotations are evaluated here: Prefect may load this file under a name that is not its module's,
where it could not find what a string stands for.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import networkx as nx
from prefect import Flow, flow, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.states import Failed

from cloudops_prefect.artifacts import PlanProgress, results_table
from cloudops_prefect.cancellation import cancel_commands
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.control import RunControl, sigterm
from cloudops_prefect.crashes import shows_that_it_lives
from cloudops_prefect.errors import ValidationError
from cloudops_prefect.graph import plan_graph
from cloudops_prefect.models import (
    ExecutionPlan,
    ExecutionRequest,
    ExecutionResult,
    PlanExecutionResult,
)
from cloudops_prefect.naming import RUN_COMMAND, RUN_PLAN, plan_run_name, shown_name, tags_of
from cloudops_prefect.orphaned import outlive_the_worker
from cloudops_prefect.parameters import plan_of, request_of
from cloudops_prefect.plan_run import PlanRun
from cloudops_prefect.plan_store import with_stored_plan
from cloudops_prefect.publishing import until_delivered
from cloudops_prefect.records import read_results
from cloudops_prefect.services import Services, current_services
from cloudops_prefect.states import command_state_of, plan_state_of
from cloudops_prefect.stranded import leave_if_taken
from cloudops_prefect.unbegun import has_begun, tell_cancellation_at_exit
from cloudops_prefect.unrecorded import completed_without_record

# Results go to the API as `records`; Prefect's own persistence would write them to a directory that
# no other machine can read.
_OPTIONS: dict[str, Any] = {"persist_result": False}

# Prefect calls a run `adjective-animal` where nobody named it.
_MADE_UP_NAME = re.compile(r"[a-z]+-[a-z]+")

# Prefect's engine loads this module before it asks the API whether the run may begin.
outlive_the_worker()
tell_cancellation_at_exit()


def compile_plan(plan: ExecutionPlan, config: ExecutionConfig | None = None) -> "Flow[[], Any]":
    """Turns a plan into a Prefect flow without parameters whose task runs are the plan's commands.

    Calling the flow runs the plan and returns its `PlanExecutionResult`; a plan that did not
    complete raises an error that has it as `result`. The edges between the task runs are the
    plan's.

    Raises:
        ValidationError: if the plan is refused.
    """
    graph = plan_graph(plan)

    async def run() -> Any:
        return await _run_plan(plan, graph, config)

    return Flow(
        run,
        name=RUN_PLAN,
        flow_run_name=plan_run_name(plan, config).replace("{", "{{").replace("}", "}}"),
        **_OPTIONS,
    )


def compile_command(
    request: ExecutionRequest, config: ExecutionConfig | None = None
) -> "Flow[[], Any]":
    """Turns a request into a Prefect flow without parameters, of one task run."""

    async def run() -> Any:
        return await _run_command(request, config)

    return Flow(run, name=RUN_COMMAND, **_OPTIONS)


@flow(name=RUN_PLAN, **_OPTIONS)
async def run_plan(plan: ExecutionPlan) -> Any:
    """Runs a plan of commands.

    Args:
        plan: The commands, and the order in which they run.
    """
    await _heed_other_processes()
    async with current_services() as services:
        # Inside: the services' task group would wrap the error.
        try:
            with sigterm.cancels(services.control(_flow_run().id)):
                plan = plan_of(await with_stored_plan(services.client, _flow_run())) or plan
                name = plan_run_name(plan, services.config)
                await _present(services, name, tags_of(plan.id, plan.metadata))
                await _heed_earlier_cancellation(services)
                return await _run_plan(plan, plan_graph(plan), None)
        except ValidationError as error:
            return Failed(message=str(error), data=error)


@flow(name=RUN_COMMAND, **_OPTIONS)
async def run_command(request: ExecutionRequest) -> Any:
    """Runs one command.

    Args:
        request: The command, and how to run it.
    """
    await _heed_other_processes()
    request = request_of(_flow_run()) or request
    async with current_services() as services:
        # Inside: the services' task group would wrap the error.
        try:
            with sigterm.cancels(services.control(_flow_run().id)):
                name = shown_name(request, services.config)
                await _present(services, name, tags_of(request.id, request.metadata))
                await _heed_earlier_cancellation(services)
                return await _run_command(request, None)
        except ValidationError as error:
            return Failed(message=str(error), data=error)


async def _heed_other_processes() -> None:
    flow_run = _flow_run()
    if flow_run.work_pool_name is not None:
        async with get_client() as client:
            await leave_if_taken(client, flow_run)


async def _present(services: Services, name: str, tags: Sequence[str]) -> None:
    """Gives a run that a form or a schedule started the name and tags that an engine gives."""
    flow_run = _flow_run()
    if not _MADE_UP_NAME.fullmatch(flow_run.name):
        name = flow_run.name
    if name == flow_run.name and set(tags) <= set(flow_run.tags):
        return
    both = list(dict.fromkeys([*flow_run.tags, *tags]))
    await until_delivered(
        partial(services.client.update_flow_run, flow_run.id, name=name, tags=both)
    )


async def _heed_earlier_cancellation(services: Services) -> None:
    """Cancels a run, or commands of it, that were cancelled before its process had begun it.

    The server lets a run out of Cancelled, and the flow is told only that it is Running.
    """
    flow_run = _flow_run()
    states = await services.client.read_flow_run_states(flow_run.id)
    before = [state for state in states if not state.is_running()]
    newest = max(before, key=lambda state: state.timestamp, default=None)
    if newest is not None and (newest.is_cancelled() or newest.is_cancelling()):
        services.control(flow_run.id).cancel()
    await cancel_commands(services.client, {flow_run.id: services.control(flow_run.id)})


async def _run_plan(
    plan: ExecutionPlan, graph: "nx.DiGraph[int]", config: ExecutionConfig | None
) -> State[Any]:
    async with current_services(config) as services:
        plan.validate(services.config)
        started = datetime.now(UTC)
        run = await _prepare(graph, services, env_from=plan.env_from)
        progress = PlanProgress(services.client, run.flow_run_id, run.results, len(graph))
        with _under_control(run.control, services):
            async with progress.shown():
                await run.run()
            table = results_table(plan, run.flow_run_id, run.in_order(), services.config)
            await until_delivered(partial(services.client.create_artifact, table))
            await services.publisher.flush(run.flow_run_id)
        result = PlanExecutionResult.of(
            plan,
            run.flow_run_id,
            run.in_order(with_output=_is_awaited(_flow_run())),
            total_duration=datetime.now(UTC) - started,
            cancelled=run.control.cancelled,
        )
        run.final_state = plan_state_of(result)
    return run.final_state


async def _run_command(request: ExecutionRequest, config: ExecutionConfig | None) -> State[Any]:
    async with current_services(config) as services:
        request.validate(services.config)
        graph: nx.DiGraph[int] = nx.DiGraph(stop_on_failure=False)
        graph.add_node(0, request=request)
        run = await _prepare(graph, services, single=True)
        with _under_control(run.control, services):
            await run.run()
            await services.publisher.flush(run.flow_run_id)
        (result,) = run.in_order(with_output=_is_awaited(_flow_run()))
        run.final_state = command_state_of(result, request)
    return run.final_state


@contextmanager
def _under_control(control: RunControl, services: Services) -> Generator[None]:
    """Lets SIGTERM cancel the run, and its process be missed, unless an engine sees to that."""
    flow_run = _flow_run()
    if flow_run.id in services.driven:
        yield
        return
    alive = shows_that_it_lives(flow_run.id, flow_run.run_count, services.config)
    with alive, sigterm.cancels(control):
        has_begun()
        yield


async def _prepare(
    graph: "nx.DiGraph[int]",
    services: Services,
    *,
    single: bool = False,
    env_from: Sequence[str] = (),
) -> PlanRun:
    flow_run = _flow_run()
    return PlanRun(
        graph,
        flow_run.id,
        services,
        attempt=max(flow_run.run_count, 1),
        earlier=await _earlier_results(graph, services),
        single=single,
        env_from=env_from,
    )


async def _earlier_results(
    graph: "nx.DiGraph[int]", services: Services
) -> dict[int, ExecutionResult]:
    flow_run = _flow_run()
    if flow_run.run_count <= 1:
        return {}
    requests = [graph.nodes[index]["request"] for index in range(len(graph))]
    results = await read_results(services.client, flow_run.id)
    completed = await completed_without_record(services.client, flow_run, requests, results)
    return results | completed


def _flow_run() -> FlowRun:
    context = FlowRunContext.get()
    assert context is not None, "Prefect sets it before it calls a flow"  # noqa: S101
    assert context.flow_run is not None  # noqa: S101
    return context.flow_run


def _is_awaited(flow_run: FlowRun) -> bool:
    # A run of a deployment, an engine's included, has no caller that takes what it returns.
    return flow_run.deployment_id is None
