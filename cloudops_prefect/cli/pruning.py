"""Old log files removed, but for those that somebody may still need."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterId,
)

from cloudops_prefect import retention
from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.api import api
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.models import ExecutionStatus
from cloudops_prefect.states import status_of

if TYPE_CHECKING:
    from datetime import timedelta

    from prefect.client.orchestration import PrefectClient

_ASKED_AT_ONCE = 100
_FAILED = frozenset({ExecutionStatus.FAILED, ExecutionStatus.TIMEOUT})


async def prune_logs(older_than: "timedelta", *, keep_failed: bool, json: bool) -> int:
    """Removes old logs and prints what that freed; returns the exit code."""
    log_dir = ExecutionConfig.load().resolved_log_dir
    old = retention.old_executions(log_dir, older_than)
    statuses = await _statuses(old)
    keep = {
        execution_id
        for execution_id, status in statuses.items()
        if not status.is_final or (keep_failed and status in _FAILED)
    }
    # What has become old since then, nobody was asked about.
    pruned = retention.prune(log_dir, older_than, only=set(old) - keep)
    if json:
        printing.json_document(pruned._asdict() | {"kept": sorted(keep)})
    else:
        count = len(pruned.executions)
        removed = f"{count} execution{'' if count == 1 else 's'}"
        printing.line(f"Removed the logs of {removed}, {printing.size(pruned.size)}")
    return exit_codes.COMPLETED


async def _statuses(execution_ids: Sequence[UUID]) -> dict[UUID, ExecutionStatus]:
    statuses: dict[UUID, ExecutionStatus] = {}
    if not execution_ids:
        return statuses
    async with api() as client:
        for begin in range(0, len(execution_ids), _ASKED_AT_ONCE):
            asked = [*execution_ids[begin : begin + _ASKED_AT_ONCE]]
            statuses |= await _known_statuses(client, asked)
    return statuses


async def _known_statuses(
    client: "PrefectClient", asked: list[UUID]
) -> dict[UUID, ExecutionStatus]:
    """Asks for executions of commands alone, and for those of commands of plans.

    A command of a plan that still runs counts as running: it is a part of that.
    """
    task_runs = await client.read_task_runs(
        task_run_filter=TaskRunFilter(id=TaskRunFilterId(any_=asked)), limit=_ASKED_AT_ONCE
    )
    plans = {run.flow_run_id for run in task_runs if run.flow_run_id is not None}
    statuses: dict[UUID, ExecutionStatus] = {}
    for wanted in (asked, [*plans]):
        flow_runs = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=wanted)), limit=_ASKED_AT_ONCE
        )
        statuses |= {run.id: status_of(run.state) for run in flow_runs}
    for run in task_runs:
        plan = statuses.get(run.flow_run_id) if run.flow_run_id else None
        statuses[run.id] = plan if plan and not plan.is_final else status_of(run.state)
    return statuses
