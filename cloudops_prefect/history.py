"""What the Prefect API knows of executions: found by their ids, told as statuses and results."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from cloudops_prefect.crashes import error_of_state
from cloudops_prefect.errors import (
    ExecutionNotCompletedError,
    ExecutionNotFoundError,
    InvalidPlanError,
)
from cloudops_prefect.models import (
    ExecutionPlan,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    PlanExecutionResult,
)
from cloudops_prefect.naming import RUN_PLAN, id_tag, with_name
from cloudops_prefect.parameters import has_plan, plan_of, request_ids, request_of
from cloudops_prefect.plan_run import task_run_id
from cloudops_prefect.plan_store import with_stored_plan
from cloudops_prefect.records import RecordReader, ResultRecord, read_results
from cloudops_prefect.states import status_of
from cloudops_prefect.unrecorded import unrecorded_results, was_cancelled_before

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

T = TypeVar("T", ExecutionResult, PlanExecutionResult)
RUN_PAGE_SIZE = 200


@dataclass(frozen=True, slots=True)
class Execution:
    """A run that was found: a single command, a plan, or one command of a plan (`index`).

    Attributes:
        attempt: Which attempt at the flow run a plan's command belongs to.
    """

    id: UUID
    flow_run: FlowRun
    index: int | None = None
    attempt: int | None = None

    @property
    def plan(self) -> ExecutionPlan | None:
        """The plan, None if the run is a single command's."""
        return plan_of(self.flow_run)

    @property
    def request(self) -> ExecutionRequest | None:
        """The request, None if the run is a plan's."""
        if self.index is not None and (plan := self.plan) is not None:
            return plan.commands[self.index]
        return request_of(self.flow_run)


async def read_run(client: PrefectClient, flow_run_id: UUID) -> FlowRun:
    """Reads a run with the whole of its plan."""
    return await with_stored_plan(client, await client.read_flow_run(flow_run_id))


async def find(client: PrefectClient, wanted: UUID, known: UUID | None = None) -> Execution:
    """Finds an execution by its own id, or the newest by the id of its request or plan.

    Args:
        client: Of the API.
        wanted: The id.
        known: An execution of `wanted`, where that is known to be the id of a request or plan.

    Raises:
        ExecutionNotFoundError: if the API knows none.
    """
    if known is not None:
        try:
            return await find_newest(client, wanted)
        except ExecutionNotFoundError:
            # By its idempotency key it is the execution of another request.
            wanted = known
    try:
        return Execution(wanted, await read_run(client, wanted))
    except ObjectNotFound:
        pass
    try:
        task_run = await client.read_task_run(wanted)
    except ObjectNotFound:
        return await find_newest(client, wanted)
    if task_run.flow_run_id is None:
        raise ExecutionNotFoundError(wanted)
    execution = Execution(wanted, await read_run(client, task_run.flow_run_id))
    return _command_of_plan(execution, wanted)


def _command_of_plan(execution: Execution, wanted: UUID) -> Execution:
    flow_run = execution.flow_run
    plan = execution.plan
    count = 1 if plan is None else len(plan.commands)
    for attempt in range(flow_run.run_count, 0, -1):
        for index in range(count):
            if task_run_id(flow_run.id, attempt, index) == wanted:
                return Execution(wanted, flow_run, index, attempt)
    raise ExecutionNotFoundError(wanted)


def commands_of(execution: Execution, plan: ExecutionPlan) -> list[Execution]:
    """Returns the executions of a plan's commands in its newest attempt."""
    flow_run = execution.flow_run
    attempt = newest_attempt(flow_run)
    return [
        Execution(task_run_id(flow_run.id, attempt, index), flow_run, index, attempt)
        for index in range(len(plan.commands))
    ]


def newest_attempt(flow_run: FlowRun) -> int:
    """Returns which attempt at a run goes on, has ended last, or is to come."""
    begun = flow_run.run_count
    return max(begun if is_begun(flow_run) else begun + 1, 1)


def is_begun(flow_run: FlowRun) -> bool:
    """Whether the newest attempt at a run has begun, or has ended."""
    return flow_run.state_type not in {StateType.SCHEDULED, StateType.PENDING}


async def find_newest(client: PrefectClient, own_id: UUID) -> Execution:
    """Finds the newest execution of a request or plan.

    Raises:
        ExecutionNotFoundError: if the API knows none.
    """
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[id_tag(own_id)])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    if not runs:
        found = await _find_in_plans(client, own_id)
    elif has_plan(runs[0]):
        return Execution(runs[0].id, await with_stored_plan(client, runs[0]))
    else:
        since = runs[0].expected_start_time
        found = await _find_in_plans(client, own_id, since) or Execution(runs[0].id, runs[0])
    if found is None:
        raise ExecutionNotFoundError(own_id)
    return found


async def _find_in_plans(
    client: PrefectClient, wanted: UUID, since: datetime | None = None
) -> Execution | None:
    """Looks through the plans, the newest first: Prefect has no index of what is in a plan."""
    offset = 0
    while True:
        runs = await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[RUN_PLAN])),
            flow_run_filter=FlowRunFilter(expected_start_time=due(since)),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=RUN_PAGE_SIZE,
            offset=offset,
        )
        for run in runs:
            if (found := await _command_in(client, run, wanted)) is not None:
                return found
        if len(runs) < RUN_PAGE_SIZE:
            return None
        offset += RUN_PAGE_SIZE


async def _command_in(client: PrefectClient, run: FlowRun, wanted: UUID) -> Execution | None:
    """Finds a command by its request's id, or by the execution's: a task run is there late."""
    try:
        run = await with_stored_plan(client, run)
    except InvalidPlanError:
        return None
    text = str(wanted)
    for index, request_id in enumerate(request_ids(run)):
        attempt = newest_attempt(run)
        execution_id = task_run_id(run.id, attempt, index)
        if execution_id == wanted or request_id == text:
            return Execution(execution_id, run, index, attempt)
    return None


async def read_status(client: PrefectClient, execution: Execution) -> ExecutionStatus:
    """Reads where an execution stands."""
    if execution.index is None:
        return status_of(execution.flow_run.state)
    if (result := await _recorded(client, execution)) is not None:
        return result.status
    if status_of(execution.flow_run.state).is_final:
        return (await _unrecorded(client, execution, execution.index)).status
    try:
        task_run = await client.read_task_run(execution.id)
    except ObjectNotFound:
        return ExecutionStatus.PENDING
    if was_cancelled_before(task_run):
        return ExecutionStatus.PENDING
    status = status_of(task_run.state)
    # It has ended when its result can be read; the state may be there a moment earlier.
    return ExecutionStatus.RUNNING if status.is_final else status


async def read_result(client: PrefectClient, execution: Execution) -> ExecutionResult:
    """Reads how an execution ended; a plan's as one result.

    Raises:
        ExecutionNotCompletedError: if it has not ended.
    """
    if execution.index is None and execution.plan is not None:
        return _explained(execution, (await read_plan_result(client, execution)).as_result())
    result = await _read_command_result(client, execution)
    request = execution.request
    return result if request is None else with_name(result, request)


async def _read_command_result(client: PrefectClient, execution: Execution) -> ExecutionResult:
    result = await _recorded(client, execution)
    status = status_of(execution.flow_run.state)
    if result is not None and execution.index is not None:
        return result
    if result is not None and status.is_final:
        failed_late = result.succeeded and status is ExecutionStatus.FAILED
        return _explained(execution, _as_failed(result)) if failed_late else result
    if not status.is_final:
        raise ExecutionNotCompletedError(execution.id, status)
    if execution.index is not None:
        return await _unrecorded(client, execution, execution.index)
    return _without_record(execution, status)


def _as_failed(result: T) -> T:
    """Return a result as one of a run that failed, or died, when its commands had completed."""
    return result.model_copy(update={"status": ExecutionStatus.FAILED})


def _explained(execution: Execution, result: ExecutionResult) -> ExecutionResult:
    """Return a run's result with the reason of its state, where no command has another."""
    if result.error or result.succeeded:
        return result
    why = error_of_state(execution.flow_run.state)
    return result.with_note(why) if why else result


async def _recorded(client: PrefectClient, execution: Execution) -> ExecutionResult | None:
    """Reads the result that the API has: an attempt's own, or that of an earlier one that counts.

    What completed is not run again.
    """
    records = await RecordReader(execution.flow_run.id).read(client)
    known = [one for one in records if one.index == (execution.index or 0)]
    attempt = execution.attempt
    if attempt is not None:
        own = [one for one in known if one.attempt == attempt]
        known = own or [one for one in known if one.attempt < attempt and _is_completed(one)]
    return max(known, key=attrgetter("attempt")).result if known else None


def _is_completed(record: ResultRecord) -> bool:
    return record.result.status is ExecutionStatus.COMPLETED


async def _unrecorded(client: PrefectClient, execution: Execution, index: int) -> ExecutionResult:
    plan = execution.plan
    assert plan is not None  # noqa: S101 (what has an index is a plan's)
    return (await unrecorded_results(client, execution.flow_run, plan.commands, [index]))[index]


async def read_plan_result(client: PrefectClient, execution: Execution) -> PlanExecutionResult:
    """Reads how a plan ended.

    Raises:
        ExecutionNotFoundError: if the execution is not a plan's.
        ExecutionNotCompletedError: if it has not ended.
    """
    flow_run = execution.flow_run
    plan = execution.plan
    if plan is None or execution.index is not None:
        raise ExecutionNotFoundError(execution.id)
    status = status_of(flow_run.state)
    if not status.is_final:
        raise ExecutionNotCompletedError(execution.id, status)
    indices = range(len(plan.commands))
    results = await read_results(client, flow_run.id)
    results |= await unrecorded_results(
        client, flow_run, plan.commands, [index for index in indices if index not in results]
    )
    result = PlanExecutionResult.of(
        plan,
        flow_run.id,
        [with_name(results[index], request) for index, request in enumerate(plan.commands)],
        total_duration=flow_run.total_run_time,
        cancelled=status is ExecutionStatus.CANCELLED,
    )
    all_completed = result.status is ExecutionStatus.COMPLETED
    return _as_failed(result) if all_completed and status is ExecutionStatus.FAILED else result


def due(since: datetime | None = None) -> FlowRunFilterExpectedStartTime:
    """Leaves out what a schedule has there already: its next hundred runs."""
    # The clocks of two machines may differ.
    soon = datetime.now(UTC) + timedelta(minutes=1)
    return FlowRunFilterExpectedStartTime(before_=soon, after_=since)  # pyright: ignore[reportArgumentType]


def started_at(flow_run: FlowRun) -> datetime | None:
    """Return when a run started; None if it has not."""
    # Prefect gives a start time to what has ended, also where it never ran.
    return flow_run.start_time if flow_run.run_count else None


def _without_record(execution: Execution, status: ExecutionStatus) -> ExecutionResult:
    """Tells what the state alone can tell: the run was ended before it could leave a result."""
    flow_run = execution.flow_run
    request = execution.request
    return ExecutionResult(
        id=execution.id if request is None else request.id,
        execution_id=execution.id,
        status=status,
        started_at=started_at(flow_run),
        completed_at=flow_run.end_time,
        duration=flow_run.total_run_time,
        error=error_of_state(flow_run.state),
        stdout_truncated=bool(flow_run.run_count),
        stderr_truncated=bool(flow_run.run_count),
    )
