"""What is known of commands that left no result: they never ran, or their process died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.client.schemas.objects import StateType

from cloudops_prefect.crashes import error_of_state
from cloudops_prefect.models import ExecutionRequest, ExecutionResult, ExecutionStatus
from cloudops_prefect.plan_run import COMMAND_CANCELLED, PLAN_CANCELLED, task_run_id
from cloudops_prefect.states import status_of
from cloudops_prefect.unforeseen_errors import UNFORESEEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, TaskRun

NEVER_RAN = "not run: the plan had ended"
TASK_RUN_PAGE_SIZE = 200


async def unrecorded_results(
    client: PrefectClient,
    flow_run: FlowRun,
    requests: Sequence[ExecutionRequest],
    indices: Iterable[int],
    *,
    attempt: int | None = None,
) -> dict[int, ExecutionResult]:
    """Reads how the commands did that have no record, of a run that has ended, by their index.

    Args:
        client: The API.
        flow_run: The run.
        requests: All of its commands.
        indices: Those without a record.
        attempt: Which attempt at the run; the newest if absent.
    """
    missing = list(indices)
    if not missing:
        return {}
    task_runs = await task_runs_of(client, flow_run)
    results: dict[int, ExecutionResult] = {}
    for index in missing:
        execution_id = task_run_id(flow_run.id, attempt or max(flow_run.run_count, 1), index)
        task_run = task_runs.get(execution_id)
        if task_run is None and flow_run.state_type is StateType.COMPLETED:
            results[index] = _completed(requests[index], execution_id, flow_run)
        elif task_run is None:
            why = _why_not_run(flow_run, has_begun=bool(task_runs))
            results[index] = ExecutionResult.not_run(requests[index], execution_id, why)
        else:
            results[index] = _result(requests[index], execution_id, flow_run, task_run)
    return results


async def completed_without_record(
    client: PrefectClient,
    flow_run: FlowRun,
    requests: Sequence[ExecutionRequest],
    recorded: Iterable[int],
) -> dict[int, ExecutionResult]:
    """Reads what completed in an earlier attempt at a run whose process died with the result."""
    task_runs = await task_runs_of(client, flow_run)
    found: dict[int, ExecutionResult] = {}
    for index in set(range(len(requests))).difference(recorded):
        for attempt in range(flow_run.run_count, 0, -1):
            task_run = task_runs.get(task_run_id(flow_run.id, attempt, index))
            if task_run is not None and task_run.state_type is StateType.COMPLETED:
                found[index] = _result(requests[index], task_run.id, flow_run, task_run)
                break
    return found


def _result(
    request: ExecutionRequest, execution_id: UUID, flow_run: FlowRun, task_run: TaskRun
) -> ExecutionResult:
    if was_cancelled_before(task_run):
        return ExecutionResult.not_run(request, execution_id, COMMAND_CANCELLED)
    status = _status(flow_run, task_run)
    return ExecutionResult(
        id=request.id,
        execution_id=execution_id,
        status=status,
        exit_code=0 if status is ExecutionStatus.COMPLETED else None,
        started_at=task_run.start_time,
        completed_at=task_run.end_time or flow_run.end_time,
        duration=task_run.total_run_time,
        error=_error(flow_run, task_run, status),
        stdout_truncated=True,
        stderr_truncated=True,
    )


def _completed(request: ExecutionRequest, execution_id: UUID, flow_run: FlowRun) -> ExecutionResult:
    """Return the result of a command whose task run the API records later than its plan's end."""
    return ExecutionResult(
        id=request.id,
        execution_id=execution_id,
        status=ExecutionStatus.COMPLETED,
        exit_code=0,
        completed_at=flow_run.end_time,
        stdout_truncated=True,
        stderr_truncated=True,
    )


def was_cancelled_before(task_run: TaskRun) -> bool:
    """Whether it is the task run of a command that was cancelled before its turn had come."""
    return task_run.state_type is StateType.CANCELLING and task_run.start_time is None


def _status(flow_run: FlowRun, task_run: TaskRun) -> ExecutionStatus:
    status = status_of(task_run.state)
    if status.is_final:
        return status
    if flow_run.state_type is StateType.COMPLETED:
        # A plan completes when all of its commands have, whatever the API has recorded of them.
        return ExecutionStatus.COMPLETED
    cancelled = flow_run.state_type is StateType.CANCELLED
    return ExecutionStatus.CANCELLED if cancelled else ExecutionStatus.FAILED


def _error(flow_run: FlowRun, task_run: TaskRun, status: ExecutionStatus) -> str | None:
    if status is ExecutionStatus.COMPLETED:
        return None
    state = task_run.state if task_run.state and task_run.state.is_final() else flow_run.state
    return error_of_state(state)


def _why_not_run(flow_run: FlowRun, *, has_begun: bool) -> str:
    # A plan that failed before its first command was refused where it was to run.
    message = (flow_run.state and flow_run.state.message) or ""
    failed = flow_run.state_type is StateType.FAILED
    refused = failed and (not has_begun or message.startswith(UNFORESEEN))
    if refused or flow_run.state_type is StateType.CRASHED:
        return f"not run: {error_of_state(flow_run.state)}"
    return PLAN_CANCELLED if flow_run.state_type is StateType.CANCELLED else NEVER_RAN


async def task_runs_of(client: PrefectClient, flow_run: FlowRun) -> dict[UUID, TaskRun]:
    """Reads all task runs of a run, by their ids."""
    wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run.id]))
    return await all_task_runs(client, wanted)


async def all_task_runs(client: PrefectClient, wanted: TaskRunFilter) -> dict[UUID, TaskRun]:
    """Reads all pages of the task runs that a filter wants."""
    found: dict[UUID, TaskRun] = {}
    while True:
        page = await client.read_task_runs(
            task_run_filter=wanted, limit=TASK_RUN_PAGE_SIZE, offset=len(found)
        )
        found |= {task_run.id: task_run for task_run in page}
        if len(page) < TASK_RUN_PAGE_SIZE:
            return found
