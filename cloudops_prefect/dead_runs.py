"""Telling the API of runs whose process died on this machine, what no worker has seen of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from cloudops_prefect.api_errors import answered_soon
from cloudops_prefect.crashes import DIED, api_url, clock
from cloudops_prefect.errors import InvalidPlanError
from cloudops_prefect.late_cancelling import end_again
from cloudops_prefect.left_results import tell_left_results
from cloudops_prefect.liveness import signs_of_the_dead
from cloudops_prefect.logfiles import is_here
from cloudops_prefect.parameters import plan_of, request_of
from cloudops_prefect.plan_run import task_run_id
from cloudops_prefect.plan_store import with_stored_plan
from cloudops_prefect.records import RecordReader
from cloudops_prefect.states import state_of
from cloudops_prefect.tasks import create_task_run
from cloudops_prefect.unrecorded import task_runs_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.liveness import Sign
    from cloudops_prefect.models import ExecutionRequest

logger = logging.getLogger("cloudops_prefect.dead_runs")


async def tell_crashes(
    client: PrefectClient, config: ExecutionConfig, flow_run_id: UUID | None = None
) -> bool:
    """Marks as crashed what dead processes of this machine have left unfinished.

    Args:
        client: Of the API.
        config: Where the logs are.
        flow_run_id: Only that run.

    Returns:
        Whether there was something to be told.
    """
    told = False
    for sign in signs_of_the_dead(config.resolved_log_dir, api_url(), flow_run_id):
        try:
            with answered_soon():
                flow_run = await client.read_flow_run(sign.flow_run_id)
        except ObjectNotFound:
            continue
        await tell_left_results(client, config, sign)
        if _was_left_by_the_dead(flow_run, sign):
            await _mark(client, flow_run, config)
            told = True
    return told


async def tell_crash(client: PrefectClient, config: ExecutionConfig, flow_run: FlowRun) -> bool:
    """Marks a run as crashed, and its commands, as `tell_crashes` does; also ends one again.

    A worker that has told of the death knows nothing of the commands. Of a run that no worker has
    started, or one that has ended with its runs, nobody has told.
    """
    if flow_run.state_type not in {StateType.RUNNING, StateType.CRASHED}:
        return await end_again(client, flow_run)
    return await tell_crashes(client, config, flow_run.id)


def _was_left_by_the_dead(flow_run: FlowRun, sign: Sign) -> bool:
    """Whether a run is still at the attempt that a dead process made."""
    if flow_run.run_count == sign.attempt:
        # Who waits for another attempt was given one.
        return flow_run.state_type not in {StateType.SCHEDULED, StateType.PENDING}
    # One attempt less where it died before it began; one more goes on somewhere else.
    return flow_run.run_count < sign.attempt


async def _mark(client: PrefectClient, flow_run: FlowRun, config: ExecutionConfig) -> None:
    crashed = Crashed(message=await _message(client, flow_run))
    records = await RecordReader(flow_run.id).read(client)
    ends = {
        task_run_id(flow_run.id, one.attempt, one.index): state_of(one.result) for one in records
    }
    await _mark_commands(client, flow_run, config, crashed, ends)
    if flow_run.state_type not in TERMINAL_STATES:
        logger.warning("Run %s: %s", flow_run.id, crashed.message)
        single = task_run_id(flow_run.id, max(flow_run.run_count, 1), 0)
        # The end of the run of a single command is that of the command.
        end = ends.get(single, crashed) if request_of(flow_run) else crashed
        await client.set_flow_run_state(flow_run.id, end, force=True)


async def _mark_commands(
    client: PrefectClient,
    flow_run: FlowRun,
    config: ExecutionConfig,
    crashed: State[Any],
    ends: Mapping[UUID, State[Any]],
) -> None:
    """Ends the task runs, also of commands that had begun before the API could be told of it."""
    known = await task_runs_of(client, flow_run)
    requests = await _requests(client, flow_run)
    async with anyio.create_task_group() as tasks:
        for task_run in known.values():
            if task_run.state_type not in TERMINAL_STATES:
                end = ends.get(task_run.id, crashed)
                tasks.start_soon(client.set_task_run_state, task_run.id, end, True)  # noqa: FBT003
        for index, request in enumerate(requests):
            execution_id = task_run_id(flow_run.id, max(flow_run.run_count, 1), index)
            if execution_id not in known and is_here(config.log_path(execution_id)):
                end = ends.get(execution_id, crashed)
                tasks.start_soon(
                    create_task_run, client, request, flow_run.id, execution_id, end, config
                )


async def _requests(client: PrefectClient, flow_run: FlowRun) -> list[ExecutionRequest]:
    try:
        flow_run = await with_stored_plan(client, flow_run)
    except InvalidPlanError:
        return []
    plan, request = plan_of(flow_run), request_of(flow_run)
    return plan.commands if plan else [request] if request else []


async def _message(client: PrefectClient, flow_run: FlowRun) -> str:
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run.id]))
    newest = await client.read_logs(wanted, limit=1, sort=LogSort.TIMESTAMP_DESC)
    heard: list[datetime] = [log.timestamp for log in newest]
    if flow_run.state is not None:
        heard.append(flow_run.state.timestamp)
    return f"{DIED}; last heard of at {clock(max(heard))}" if heard else DIED
