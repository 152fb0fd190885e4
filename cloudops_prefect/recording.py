"""The ends of task runs, until the API has recorded them.

They travel as events, are there some time after the end, and are dropped by Prefect's worker of
events while the API is away.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from prefect.client.schemas.filters import (
    TaskRunFilter,
    TaskRunFilterId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.states import Pending
from prefect.utilities.engine import emit_task_run_state_change_event

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State, TaskRun

PAGE = 200
PATIENCE = 60.0
INTERVAL = 0.1
FORGET_INTERVAL = 5.0
TELL_AGAIN_AFTER = 10.0

logger = logging.getLogger("cloudops_prefect.recording")


@dataclass(slots=True)
class TaskRunEnd:
    """How a task run ended.

    Attributes:
        tell: Sends the event of the end; a second one makes no difference.
        told: When it was sent last, on the clock of the event loop.
    """

    task_run_id: UUID
    state: State[Any]
    tell: Callable[[], object]
    told: float = field(default_factory=anyio.current_time)


def end_of(task_run: TaskRun, state: State[Any]) -> TaskRunEnd:
    """Returns the end of a task run; to be called inside of its flow."""
    # By the context Prefect finds the flow run that the event belongs to.
    context = copy_context()

    def tell() -> None:
        context.run(emit_task_run_state_change_event, task_run, Pending(), state)

    return TaskRunEnd(task_run.id, state, tell)


async def until_recorded(client: PrefectClient, ends: dict[UUID, TaskRunEnd]) -> None:
    """Waits, with patience, until the API shows that these task runs have ended."""
    with anyio.move_on_after(PATIENCE) as patience:
        await _forget(client, ends)
        while ends:
            await anyio.sleep(INTERVAL)
            await _forget(client, ends)
    if patience.cancelled_caught:
        logger.warning("The API has not recorded the end of %d task runs", len(ends))


async def forget_recorded(client: PrefectClient, ends: dict[UUID, TaskRunEnd]) -> None:
    """Forgets what the API has recorded and tells it the rest again, until it is cancelled."""
    while True:
        await anyio.sleep(FORGET_INTERVAL)
        with suppress(Exception):
            await _forget(client, ends)


async def _forget(client: PrefectClient, ends: dict[UUID, TaskRunEnd]) -> None:
    ids = sorted(ends)
    final = TaskRunFilterState(type=TaskRunFilterStateType(any_=sorted(TERMINAL_STATES)))
    for start in range(0, len(ids), PAGE):
        wanted = TaskRunFilter(id=TaskRunFilterId(any_=ids[start : start + PAGE]), state=final)
        for task_run in await client.read_task_runs(task_run_filter=wanted, limit=PAGE):
            ends.pop(task_run.id, None)
    for end in ends.values():
        if anyio.current_time() - end.told > TELL_AGAIN_AFTER:
            end.tell()
            end.told = anyio.current_time()
