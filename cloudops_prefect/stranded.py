"""Runs that a worker took and that had not begun when it died: they go back to their work pool.

Prefect leaves them Pending for ever, and each holds one of the slots that the pool's limit gives.
A run that is Pending has started no command. Should a process that the dead worker started for it
begin late all the same, only one of the two runs the commands: each looks at the run's states
before it does (`leave_if_taken`).
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import anyio
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType, WorkerStatus
from prefect.exceptions import Abort
from prefect.states import Scheduled

from cloudops_prefect.naming import FLOW_NAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State, Worker

GIVEN_BACK = "given back to the work pool"
"""How the message of the state begins that a stranded run gets."""
LOOK_INTERVAL = 5.0
WORKER_LABEL = "prefect.worker.name"
# Longer than a worker takes to write its name on a run, and a process that it started to begin.
_STARTING = timedelta(seconds=30)
# Prefect's own: a worker is offline after so many, and those that do not say leave so long between.
_MISSED_HEARTBEATS = 3
_HEARTBEAT_SECONDS = 30
_WAITING = {StateType.SCHEDULED, StateType.PENDING}

logger = logging.getLogger("cloudops_prefect.stranded")


async def watch_stranded(client: PrefectClient, pools: Collection[str]) -> None:
    """Gives back what dead workers of the pools have left, until its task is cancelled."""
    while True:
        await anyio.sleep(LOOK_INTERVAL)
        for pool in [*pools]:
            try:
                await give_back(client, pool)
            except Exception as error:  # noqa: BLE001 (the next look may find the API again)
                logger.debug("The API can't be asked for stranded runs: %s", error)


async def give_back(client: PrefectClient, pool: str) -> None:
    """Lets the living workers of a pool have the runs that a dead one had not begun."""
    if not (pending := await _pending(client, pool)):
        return
    workers = await client.read_workers_for_work_pool(pool)
    dead = [worker for worker in workers if worker.status is WorkerStatus.OFFLINE]
    for flow_run in pending:
        if (worker := _dead_owner(flow_run, dead)) is None:
            continue
        message = f"{GIVEN_BACK}: the worker {worker.name!r} died before it began the run"
        logger.warning("Run %s: %s", flow_run.id, message)
        # With its old time, or it would come after all that were due since.
        again = Scheduled(scheduled_time=flow_run.expected_start_time, message=message)
        await client.set_flow_run_state(flow_run.id, again)


async def _pending(client: PrefectClient, pool: str) -> list[FlowRun]:
    return await client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[*FLOW_NAMES])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING]))
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )


def _dead_owner(flow_run: FlowRun, dead: Sequence[Worker]) -> Worker | None:
    """Finds the worker that took a run and died, if that is what happened."""
    if flow_run.state is None:
        return None
    taken = flow_run.state.timestamp
    owner = flow_run.labels.get(WORKER_LABEL)
    may_begin = flow_run.infrastructure_pid is not None or owner is None
    if may_begin and datetime.now(UTC) < taken + _STARTING:
        return None
    # The name may be that of an earlier owner: a worker takes a run before it writes its own.
    died = [worker for worker in dead if _was_alive(worker, taken)]
    return next((worker for worker in died if owner in {None, worker.name}), None)


def _was_alive(worker: Worker, time: datetime) -> bool:
    interval = timedelta(seconds=worker.heartbeat_interval_seconds or _HEARTBEAT_SECONDS)
    heard = worker.last_heartbeat_time
    return heard is not None and time <= heard + _MISSED_HEARTBEATS * interval


async def leave_if_taken(client: PrefectClient, flow_run: FlowRun) -> None:
    """Ends the process of a run that was given back, if another process has begun the run.

    Raises:
        Abort: Which ends it without a word to the API.
    """
    mine = flow_run.state
    if mine is None or not mine.is_running():
        return
    states = await client.read_flow_run_states(flow_run.id)
    before = sorted(states, key=attrgetter("timestamp"), reverse=True)
    before = [state for state in before if state.timestamp < mine.timestamp]
    if not _is_taken(before):
        return
    if before[0].is_final():
        await client.set_flow_run_state(flow_run.id, before[0], force=True)
    raise Abort("another process has this run, which was given back to its work pool")


def _is_taken(before: Sequence[State[Any]]) -> bool:
    """Whether a run is another process's, by the states before this one's, the newest first."""
    waiting = [*takewhile(lambda state: state.type in _WAITING, before)]
    if not waiting:
        return any(map(_was_given_back, before))
    # It began while it was being given back.
    return len(waiting) < len(before) and _was_given_back(waiting[-1])


def _was_given_back(state: State[Any]) -> bool:
    return (state.message or "").startswith(GIVEN_BACK)
