"""What the API knows of a run of a plan, command by command."""

from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from cloudops_prefect import history
from cloudops_prefect.api_errors import api
from cloudops_prefect.cli.picture import CommandFacts, Picture, RunFacts
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.dead_runs import tell_crashes
from cloudops_prefect.deployed_runs import what_it_waits_for
from cloudops_prefect.errors import ExecutionNotFoundError
from cloudops_prefect.models import ExecutionPlan, ExecutionStatus, ParallelStrategy
from cloudops_prefect.naming import api_credentials
from cloudops_prefect.states import status_of

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from cloudops_prefect.history import Execution
    from cloudops_prefect.models import ExecutionRequest, ExecutionResult

_PAGE = 200


async def picture_of_run(execution_id: UUID) -> Picture:
    """Reads what is to be drawn of a run; that of a command is the one of its plan.

    Raises:
        ExecutionNotFoundError: if the API knows no such execution.
    """
    async with api() as client:
        await tell_crashes(client, ExecutionConfig.load())
        execution = await history.find(client, execution_id)
        plan = _plan_of(execution)
        facts = await read_facts(client, execution, plan)
    return Picture.of(plan, facts, api_credentials())


async def execution_of(execution_id: UUID) -> "Execution":
    """Finds an execution.

    Raises:
        ExecutionNotFoundError: if the API knows none.
    """
    async with api() as client:
        return await history.find(client, execution_id)


def item_of(execution: "Execution") -> "ExecutionPlan | ExecutionRequest":
    """Returns what is executed.

    Raises:
        ExecutionNotFoundError: if it can't be read.
    """
    plan = execution.plan if execution.index is None else None
    if (item := plan or execution.request) is None:
        raise ExecutionNotFoundError(execution.id)
    return item


async def facts_of_run(execution_id: UUID) -> RunFacts:
    """Reads where a plan's run stands."""
    async with api() as client:
        execution = await history.find(client, execution_id)
        flow_run = execution.flow_run
        facts = await read_facts(client, execution, _plan_of(execution))
        if status_of(flow_run.state) is ExecutionStatus.PENDING:
            why = await what_it_waits_for(client, flow_run)
            return RunFacts(facts, waits_for=f"{why[:1].upper()}{why[1:]}")
    return RunFacts(facts, began_at=flow_run.state.timestamp if flow_run.state else None)


async def read_facts(
    client: "PrefectClient", execution: "Execution", plan: ExecutionPlan
) -> list[CommandFacts]:
    """Reads where each command of a plan's run stands."""
    ended = status_of(execution.flow_run.state).is_final
    if ended and execution.plan is not None:
        whole = history.Execution(execution.flow_run.id, execution.flow_run)
        plan_result = await history.read_plan_result(client, whole)
        return [_facts(result) for result in plan_result.results]
    if ended:
        return [_facts(await history.read_result(client, execution))]
    facts = await _of_task_runs(client, execution, plan)
    results = await history.read_results(client, execution.flow_run.id)
    # What failed in an earlier attempt is to run again.
    current = {one.id for one in history.commands_of(execution, plan)}
    facts |= {
        index: _facts(result)
        for index, result in results.items()
        if result.status is ExecutionStatus.COMPLETED or result.execution_id in current
    }
    pending = CommandFacts(ExecutionStatus.PENDING)
    return [facts.get(index, pending) for index in range(len(plan.commands))]


async def _of_task_runs(
    client: "PrefectClient", execution: "Execution", plan: ExecutionPlan
) -> dict[int, CommandFacts]:
    indices = {one.id: one.index or 0 for one in history.commands_of(execution, plan)}
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[execution.flow_run.id]))
    facts: dict[int, CommandFacts] = {}
    offset = 0
    while True:
        page = await client.read_task_runs(flow_run_filter=wanted, limit=_PAGE, offset=offset)
        for run in page:
            if run.id in indices:
                status = status_of(run.state)
                facts[indices[run.id]] = CommandFacts(status, run.start_time, run.end_time)
        if len(page) < _PAGE:
            return facts
        offset += _PAGE


def _plan_of(execution: "Execution") -> ExecutionPlan:
    if (plan := execution.plan) is not None:
        return plan
    if (request := execution.request) is None:
        raise ExecutionNotFoundError(execution.id)
    # A single command is drawn as a plan of one.
    description = request.display_text
    return ExecutionPlan(description=description, commands=[request], strategy=ParallelStrategy())


def _facts(result: "ExecutionResult") -> CommandFacts:
    ended = None if result.started_at is None else result.started_at + result.duration
    return CommandFacts(result.status, result.started_at, ended)
