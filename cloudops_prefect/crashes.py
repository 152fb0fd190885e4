"""Telling the API of runs whose process died on this machine, where no worker has seen it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
from prefect.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Crashed

from cloudops_prefect.api_errors import answered_soon
from cloudops_prefect.liveness import Sign, sign_of_life, signs_of_the_dead

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

    from cloudops_prefect.config import ExecutionConfig

DIED = "the process that ran it died"
PAGE = 200
_UNFINISHED = sorted(set(StateType) - TERMINAL_STATES)

logger = logging.getLogger("cloudops_prefect.crashes")


def shows_that_it_lives(
    flow_run_id: UUID, attempt: int, config: ExecutionConfig
) -> AbstractContextManager[None]:
    """Lets the next engine of this machine find out that the run's process died, if it dies."""
    return sign_of_life(config.resolved_log_dir, Sign(flow_run_id, attempt, _api_url()))


async def tell_crashes(client: PrefectClient, config: ExecutionConfig) -> None:
    """Marks as crashed what dead processes of this machine have left unfinished."""
    for sign in signs_of_the_dead(config.resolved_log_dir, _api_url()):
        try:
            with answered_soon():
                flow_run = await client.read_flow_run(sign.flow_run_id)
        except ObjectNotFound:
            continue
        # One attempt less where it died before it began; one more goes on somewhere else.
        if flow_run.run_count <= sign.attempt:
            await _mark(client, flow_run)


async def _mark(client: PrefectClient, flow_run: FlowRun) -> None:
    crashed = Crashed(message=await _message(client, flow_run))
    if flow_run.state_type not in TERMINAL_STATES:
        logger.warning("Run %s: %s", flow_run.id, crashed.message)
        await client.set_flow_run_state(flow_run.id, crashed, force=True)
    wanted = TaskRunFilter(
        flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run.id]),
        state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_UNFINISHED)),
    )
    while task_runs := await client.read_task_runs(task_run_filter=wanted, limit=PAGE):
        async with anyio.create_task_group() as tasks:
            for task_run in task_runs:
                tasks.start_soon(client.set_task_run_state, task_run.id, crashed, True)  # noqa: FBT003


async def _message(client: PrefectClient, flow_run: FlowRun) -> str:
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run.id]))
    newest = await client.read_logs(wanted, limit=1, sort=LogSort.TIMESTAMP_DESC)
    heard: list[datetime] = [log.timestamp for log in newest]
    if flow_run.state is not None:
        heard.append(flow_run.state.timestamp)
    return f"{DIED}; last heard of at {_clock(max(heard))}" if heard else DIED


def error_of_state(state: State[Any] | None) -> str | None:
    """Returns a final state's message; of a crash it says that, and when, the process died."""
    if state is None or not state.is_crashed():
        return None if state is None else state.message
    message = (state.message or "Prefect calls the run crashed").removesuffix(".")
    if message.startswith(DIED):
        return message
    return f"{DIED}: {message}; last heard of at {_clock(state.timestamp)}"


def _clock(time: datetime) -> str:
    return time.astimezone().isoformat(sep=" ", timespec="seconds")


def _api_url() -> str:
    return get_current_settings().api.url or ""
