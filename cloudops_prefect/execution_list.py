"""The list of executions, the newest first, as the Prefect API has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort

from cloudops_prefect.history import RUN_PAGE_SIZE, due, started_at
from cloudops_prefect.models import ExecutionStatus, ExecutionSummary
from cloudops_prefect.naming import FLOW_NAMES
from cloudops_prefect.parameters import has_plan
from cloudops_prefect.states import TIMED_OUT, status_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_FLOWS = FlowFilter(name=FlowFilterName(any_=[*FLOW_NAMES]))
_TYPES = {
    ExecutionStatus.PENDING: [StateType.SCHEDULED, StateType.PENDING, StateType.PAUSED],
    ExecutionStatus.RUNNING: [StateType.RUNNING, StateType.CANCELLING],
    ExecutionStatus.COMPLETED: [StateType.COMPLETED],
    ExecutionStatus.FAILED: [StateType.FAILED, StateType.CRASHED],
    ExecutionStatus.TIMEOUT: [StateType.FAILED],
    ExecutionStatus.CANCELLED: [StateType.CANCELLED],
}


async def read_list(  # noqa: PLR0913 (what a list may be narrowed by)
    client: PrefectClient,
    *,
    limit: int,
    offset: int,
    status: ExecutionStatus | None = None,
    tags: Sequence[str] = (),
    since: datetime | None = None,
    text: str | None = None,
) -> list[ExecutionSummary]:
    """Read a page of executions, the newest first.

    Args:
        client: Of the API.
        limit: The most executions to read.
        offset: The number of newer ones to leave out.
        status: Only those with this status.
        tags: Only those that have all of these.
        since: Only those that were due then or later.
        text: Only those with this in their name, or in the name of a command that has started or
            will not start any more; in upper or lower case.
    """
    wanted = FlowRunFilter(
        expected_start_time=due(since),
        state=None if status is None else _state_filter(status),
        tags=FlowRunFilterTags(all_=[*tags]) if tags else None,
    )
    if text:
        runs = (await _search(client, wanted, text, offset + limit))[offset:]
    else:
        runs = await _read_runs(client, wanted, limit=limit, offset=offset)
    return [_summary(run) for run in runs]


async def _search(
    client: PrefectClient, wanted: FlowRunFilter, text: str, count: int
) -> list[FlowRun]:
    """Return the newest runs with a text in their name or in that of one of their task runs.

    Prefect combines filters with "and" only, so that each kind of name is a question of its own.
    """
    by_name = wanted.model_copy(update={"name": FlowRunFilterName(like_=text)})
    by_command = TaskRunFilter(name=TaskRunFilterName(like_=text))
    found = await _read_runs(client, by_name, limit=count)
    found += await _read_runs(client, wanted, by_command, limit=count)
    unique = {run.id: run for run in found}
    return sorted(unique.values(), key=_due_time, reverse=True)[:count]


async def _read_runs(
    client: PrefectClient,
    wanted: FlowRunFilter,
    with_task_run: TaskRunFilter | None = None,
    *,
    limit: int,
    offset: int = 0,
) -> list[FlowRun]:
    found: list[FlowRun] = []
    while (asked := min(limit - len(found), RUN_PAGE_SIZE)) > 0:
        runs = await client.read_flow_runs(
            flow_filter=_FLOWS,
            flow_run_filter=wanted,
            task_run_filter=with_task_run,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=asked,
            offset=offset + len(found),
        )
        found += runs
        if len(runs) < asked:
            break
    return found


def _due_time(run: FlowRun) -> datetime:
    return run.expected_start_time or datetime.min.replace(tzinfo=UTC)


def _state_filter(status: ExecutionStatus) -> FlowRunFilterState:
    wanted = FlowRunFilterState(type=FlowRunFilterStateType(any_=_TYPES[status]))
    # Prefect has no type of its own for what timed out.
    if status is ExecutionStatus.TIMEOUT:
        wanted.name = FlowRunFilterStateName(any_=[TIMED_OUT])
    elif status is ExecutionStatus.FAILED:
        wanted.name = FlowRunFilterStateName(not_any_=[TIMED_OUT])
    return wanted


def _summary(run: FlowRun) -> ExecutionSummary:
    return ExecutionSummary(
        id=run.id,
        status=status_of(run.state),
        started_at=started_at(run),
        # Of what still runs, the time up to now; the total has that only afterwards.
        duration=run.estimated_run_time or timedelta(),
        kind="plan" if has_plan(run) else "command",
        name=run.name,
    )
