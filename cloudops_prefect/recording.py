"""The states of task runs: told to the API, and the last of each until it has recorded that.

They travel as events, are there some time after the end, and are lost with a server that ends
before it has recorded them.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
from prefect.client.schemas.filters import (
    TaskRunFilter,
    TaskRunFilterId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.states import Running

from cloudops_prefect.state_events import state_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.events.schemas.events import RelatedResource
    from prefect.types import DateTime

    from cloudops_prefect.state_events import EventSender

PAGE = 200
PATIENCE = 60.0
INTERVAL = 0.04
FORGET_INTERVAL = 5.0
TELL_AGAIN_AFTER = 10.0
RESTART = 4.0
"""Seconds that a server needs at least to be there again, without what it had not recorded."""
BREVITY = 0.1
"""Seconds in which a task run begins and ends without a word of its beginning.

The server takes longer to record it, and each word costs the server more than a short command.
"""

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


class TaskRunRecord:
    """Tells the API the states of a task run, as Prefect's own engine of task runs does.

    That engine also has a result store, a context, hooks and parameters to resolve for each task
    run, none of which a prepared command needs; together they take the event loop as long as the
    command does.

    Args:
        task_run: As it is before it begins.
        related: What `related_resources` has returned for its flow run.
        sender: Takes its events.
    """

    def __init__(
        self, task_run: TaskRun, related: Iterable[RelatedResource], sender: EventSender
    ) -> None:
        self._task_run = task_run
        self._related = related
        self._sender = sender
        self._began: float | None = None
        self._started_at: Callable[[], datetime | None] = lambda: None
        self._telling: asyncio.TimerHandle | None = None

    def begin(self, started_at: Callable[[], datetime | None]) -> None:
        """Tells that it runs, unless it ends within `BREVITY` seconds.

        Args:
            started_at: Returns when its command was started, None as long as it has not been.
        """
        self._started_at = started_at
        self._task_run.start_time = cast("DateTime", datetime.now(UTC))
        self._task_run.run_count += 1
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._telling = loop.call_later(BREVITY, self._tell_that_it_runs)

    def end(self, state: State[Any]) -> TaskRunEnd:
        """Tells how it has ended; unless its end is set already, it is the state's time."""
        task_run = self._task_run
        if self._telling is not None and self._began is not None:
            self._telling.cancel()
            task_run.total_run_time = timedelta(seconds=anyio.current_time() - self._began)
        self._learn_start()
        task_run.end_time = task_run.end_time or cast("DateTime", state.timestamp)
        event = self._enter(state)
        return TaskRunEnd(task_run.id, state, partial(self._sender.add, event))

    def _tell_that_it_runs(self) -> None:
        self._learn_start()
        self._enter(Running(timestamp=self._task_run.start_time))

    def _learn_start(self) -> None:
        # So that who follows the run is told the same time as who reads the result.
        if (started := self._started_at()) is not None:
            self._task_run.start_time = cast("DateTime", started)

    def _enter(self, state: State[Any]) -> dict[str, Any]:
        task_run, last = self._task_run, self._task_run.state
        task_run.state, task_run.state_id = state, state.id
        task_run.state_type, task_run.state_name = state.type, state.name
        event = state_event(task_run, last, self._related)
        self._sender.add(event)
        return event


async def until_recorded(client: PrefectClient, ends: dict[UUID, TaskRunEnd]) -> None:
    """Waits, with patience, until the API shows that these task runs have ended."""
    with anyio.move_on_after(PATIENCE) as patience:
        await _look(client, ends)
        while ends:
            await anyio.sleep(INTERVAL)
            await _look(client, ends)
    if patience.cancelled_caught:
        logger.warning("The API has not recorded the end of %d task runs", len(ends))


async def forget_recorded(client: PrefectClient, ends: dict[UUID, TaskRunEnd]) -> None:
    """Forgets what the API has recorded and tells it the rest again, until it is cancelled."""
    while True:
        await anyio.sleep(FORGET_INTERVAL)
        await _look(client, ends)


async def tell_lost_again(client: PrefectClient, ends: dict[UUID, TaskRunEnd]) -> None:
    """Tells again what the API should have recorded by now, since its server may have died."""
    oldest = min((end.told for end in ends.values()), default=anyio.current_time())
    if anyio.current_time() - oldest > RESTART:
        await _look(client, ends, RESTART)


async def _look(
    client: PrefectClient, ends: dict[UUID, TaskRunEnd], patience: float = TELL_AGAIN_AFTER
) -> None:
    # The next look may find what this one did not.
    with suppress(Exception):
        await _forget(client, ends, patience)


async def _forget(client: PrefectClient, ends: dict[UUID, TaskRunEnd], patience: float) -> None:
    ids = sorted(ends)
    final = TaskRunFilterState(type=TaskRunFilterStateType(any_=sorted(TERMINAL_STATES)))
    for start in range(0, len(ids), PAGE):
        wanted = TaskRunFilter(id=TaskRunFilterId(any_=ids[start : start + PAGE]), state=final)
        for task_run in await client.read_task_runs(task_run_filter=wanted, limit=PAGE):
            ends.pop(task_run.id, None)
    for end in ends.values():
        if anyio.current_time() - end.told > patience:
            end.tell()
            end.told = anyio.current_time()
