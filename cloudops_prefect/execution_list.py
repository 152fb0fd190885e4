"""The list of executions, the newest first, as the Prefect API has it."""

from __future__ import annotations

from datetime import timedelta
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
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort

from cloudops_prefect.history import PAGE, due, started_at
from cloudops_prefect.models import ExecutionStatus, ExecutionSummary
from cloudops_prefect.naming import FLOW_NAMES
from cloudops_prefect.parameters import has_plan
from cloudops_prefect.states import TIMED_OUT, status_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

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
    """Reads a page of executions, the newest first.

    Args:
        client: Of the API.
        limit: How many at most.
        offset: How many newer ones are left out.
        status: Only those that stand there.
        tags: Only those that have all of these.
        since: Only those that were due then or later.
        text: Only those with this in their name, in upper or lower case.
    """
    wanted = FlowRunFilter(
        expected_start_time=due(since),
        state=None if status is None else _state_filter(status),
        tags=FlowRunFilterTags(all_=[*tags]) if tags else None,
        name=FlowRunFilterName(like_=text) if text else None,
    )
    summaries: list[ExecutionSummary] = []
    while (asked := min(limit - len(summaries), PAGE)) > 0:
        runs = await client.read_flow_runs(
            flow_filter=_FLOWS,
            flow_run_filter=wanted,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=asked,
            offset=offset + len(summaries),
        )
        summaries += [_summary(run) for run in runs]
        if len(runs) < asked:
            break
    return summaries


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
