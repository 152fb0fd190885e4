"""Cancellation that somebody asked the API for: in the UI, with Prefect's CLI, in another process.

Prefect tells a flow that runs in the process of its caller nothing of it: such a flow would run on,
and after five minutes the server would call it Cancelled all the same.
"""

from __future__ import annotations

import logging
from itertools import chain, count, repeat
from typing import TYPE_CHECKING
from uuid import UUID

import anyio
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect.client.orchestration import PrefectClient

    from cloudops_prefect.control import RunControl

EVENTS = ("prefect.flow-run.Cancelling", "prefect.flow-run.Cancelled")
RESOURCE = "prefect.flow-run."
POLL_INTERVAL = 1.0
# What happens while the subscription to events begins is lost, and a worker's run begins with that.
FIRST_INTERVALS = (0.25, 0.25, 0.5)
RECONNECT_INTERVAL = 5.0
RUN_PAGE_SIZE = 200
_CANCELLED = FlowRunFilterState(
    type=FlowRunFilterStateType(any_=[StateType.CANCELLING, StateType.CANCELLED])
)

logger = logging.getLogger("cloudops_prefect.cancellation")


async def watch_cancellation(
    client: PrefectClient, controls: Mapping[UUID, RunControl], busy: anyio.Event
) -> None:
    """Cancels what is asked to be cancelled, until its task is cancelled.

    Args:
        client: The API.
        controls: The runs of this process.
        busy: Is set when there is a first run; nothing is asked before.
    """
    await busy.wait()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_follow_events, client, controls)
        tasks.start_soon(_poll, client, controls)


async def _follow_events(client: PrefectClient, controls: Mapping[UUID, RunControl]) -> None:
    """Hears of a cancellation within milliseconds, most times: live events may get lost."""
    wanted = EventFilter(event=EventNameFilter(name=[*EVENTS]))
    while True:
        try:
            async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as events:
                # An event of just before is neither live any more nor stored yet.
                await _look(client, controls)
                async for event in events:
                    await _heed(client, controls, UUID(event.resource.id.removeprefix(RESOURCE)))
        except Exception as error:  # noqa: BLE001 (polling does the same, only later)
            logger.debug("The API's events can't be followed: %s", error)
        await anyio.sleep(RECONNECT_INTERVAL)


async def _heed(
    client: PrefectClient, controls: Mapping[UUID, RunControl], flow_run_id: UUID
) -> None:
    # The first events are of the minute before: the run may have been given back since.
    if (control := controls.get(flow_run_id)) is not None:
        await _cancel_runs(client, {flow_run_id: control})


async def _poll(client: PrefectClient, controls: Mapping[UUID, RunControl]) -> None:
    for interval in chain(FIRST_INTERVALS, repeat(POLL_INTERVAL)):
        await anyio.sleep(interval)
        if not controls:
            continue
        try:
            await _look(client, controls)
        except Exception as error:  # noqa: BLE001 (the next look may find the API again)
            logger.debug("The API can't be asked for cancellations: %s", error)


async def _look(client: PrefectClient, controls: Mapping[UUID, RunControl]) -> None:
    await _cancel_runs(client, controls)
    await cancel_commands(client, controls)


async def _cancel_runs(client: PrefectClient, controls: Mapping[UUID, RunControl]) -> None:
    ids = [*controls]
    for start in range(0, len(ids), RUN_PAGE_SIZE):
        some = FlowRunFilterId(any_=ids[start : start + RUN_PAGE_SIZE])
        wanted = FlowRunFilter(id=some, state=_CANCELLED)
        for run in await client.read_flow_runs(flow_run_filter=wanted, limit=RUN_PAGE_SIZE):
            if (control := controls.get(run.id)) is not None:
                control.cancel()


async def cancel_commands(client: PrefectClient, controls: Mapping[UUID, RunControl]) -> None:
    """Cancels the single commands of these runs that are asked to be cancelled."""
    cancelling = TaskRunFilter(
        flow_run_id=TaskRunFilterFlowRunId(any_=[*controls]),
        state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.CANCELLING])),
    )
    for offset in count(0, RUN_PAGE_SIZE):
        page = await client.read_task_runs(
            task_run_filter=cancelling, limit=RUN_PAGE_SIZE, offset=offset
        )
        for run in page:
            if run.flow_run_id and (control := controls.get(run.flow_run_id)) is not None:
                control.cancel_command(run.id)
        if len(page) < RUN_PAGE_SIZE:
            return
