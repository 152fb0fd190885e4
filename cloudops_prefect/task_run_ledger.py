"""The task runs that have ended: each final state is reported until the API has recorded it.

States travel as events, which the API records some time after it has taken them; a server that
dies loses what it has not recorded.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio
from prefect.client.schemas.actions import TaskRunCreate
from prefect.client.schemas.filters import (
    TaskRunFilter,
    TaskRunFilterId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.exceptions import ObjectNotFound
from prefect.states import to_state_create
from prefect.utilities.engine import emit_task_run_state_change_event

from cloudops_prefect.delivery import until_delivered
from cloudops_prefect.event_delivery import EventSender, SentEvent
from cloudops_prefect.unicode_text import valid_text

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import TaskRun

PAGE_SIZE = 200
EVENT_TIMEOUT_SECONDS = 1.0
"""Seconds that an event takes at most from Prefect's engine to the sender."""
CLOSE_TIMEOUT_SECONDS = 60.0
CLOSE_INTERVAL_SECONDS = 0.04
LOOK_INTERVAL_SECONDS = 5.0
REPORT_AGAIN_AFTER_SECONDS = 10.0
SERVER_RESTART_SECONDS = 4.0
"""Seconds that a server needs at least to be there again, without what it had not recorded."""

logger = logging.getLogger("cloudops_prefect.task_run_ledger")


@dataclass(slots=True)
class _Ended:
    """A task run in its final state.

    Attributes:
        awaited: Whether the API is still to take the event of that state.
        event: That event, once the API has taken it.
        context: The context of its flow run, which Prefect attaches to events.
        reported_at: When the state was reported last, on the clock of the event loop.
    """

    task_run: TaskRun
    awaited: bool
    event: SentEvent | None = None
    context: Context = field(default_factory=copy_context)
    reported_at: float = field(default_factory=anyio.current_time)


class TaskRunLedger:
    """Keep the task runs that have ended until the API has recorded how.

    Args:
        client: A client of the API.

    Attributes:
        events: Sends the events of the task runs.
    """

    def __init__(self, client: PrefectClient) -> None:
        self.events = EventSender(client, self._mark_sent)
        self._client = client
        self._ended: dict[UUID, _Ended] = {}
        self._sent_early: dict[UUID, SentEvent] = {}
        self._ticked = anyio.Event()

    def add(self, task_run: TaskRun, *, routed: bool) -> None:
        """Add a task run that has just reported its final state, in its flow run's context.

        Args:
            task_run: The task run.
            routed: Whether its events go through `events`.
        """
        event = self._sent_early.pop(task_run.id, None)
        self._ended[task_run.id] = _Ended(task_run, routed and event is None, event)

    def forget(self, flow_run_id: UUID) -> None:
        """Drop the task runs of a flow run, whose end nobody reports any more."""
        of_run = [one for one, ended in self._ended.items() if _is_of(ended, flow_run_id)]
        for task_run_id in of_run:
            del self._ended[task_run_id]

    async def until_sent(self, flow_run_id: UUID) -> None:
        """Wait until the API has taken the final state of each task run of a flow run."""
        while awaited := [one for one in self._ended.values() if _is_awaited(one, flow_run_id)]:
            self.events.hurry()
            with anyio.move_on_after(EVENT_TIMEOUT_SECONDS) as timeout:
                await self._ticked.wait()
            if timeout.cancelled_caught:
                await self._set_states(awaited)

    async def until_recorded(self) -> None:
        """Wait until the API shows each end, for at most `CLOSE_TIMEOUT_SECONDS`."""
        with anyio.move_on_after(CLOSE_TIMEOUT_SECONDS) as patience:
            await self._look(REPORT_AGAIN_AFTER_SECONDS)
            while self._ended:
                await anyio.sleep(CLOSE_INTERVAL_SECONDS)
                await self._look(REPORT_AGAIN_AFTER_SECONDS)
        if patience.cancelled_caught:
            logger.warning("The API has not recorded the end of %d task runs", len(self._ended))

    async def run(self) -> None:
        """Report again what the API has not recorded in time, until the task is cancelled."""
        while True:
            await anyio.sleep(LOOK_INTERVAL_SECONDS)
            await self._look(REPORT_AGAIN_AFTER_SECONDS)

    async def report_lost(self) -> None:
        """Report again what the API should have recorded by now, since its server may have died."""
        times = (ended.reported_at for ended in self._ended.values())
        oldest = min(times, default=anyio.current_time())
        if anyio.current_time() - oldest > SERVER_RESTART_SECONDS:
            await self._look(SERVER_RESTART_SECONDS)

    async def _set_states(self, awaited: list[_Ended]) -> None:
        """Set the states whose events never come: Prefect's worker ends before the process does."""
        queued = self.events.ended_in_queue()
        for ended in awaited:
            if ended.awaited and ended.task_run.id not in queued:
                await until_delivered(partial(_set_state, self._client, ended.task_run))
                ended.awaited = False

    def _mark_sent(self, task_run_id: UUID, event: SentEvent) -> None:
        ended = self._ended.get(task_run_id)
        if ended is None:
            self._sent_early[task_run_id] = event
        else:
            ended.awaited, ended.event = False, event
        self._ticked.set()
        self._ticked = anyio.Event()

    def _report(self, ended: _Ended) -> None:
        """Report a final state again; the API takes it as the same one."""
        state = ended.task_run.state
        assert state is not None  # noqa: S101 (the engine has set it)
        if ended.event is not None:
            self.events.add_again(ended.event)
        else:
            ended.context.run(emit_task_run_state_change_event, ended.task_run, None, state)
        ended.reported_at = anyio.current_time()

    async def _look(self, patience: float) -> None:
        # The next look may find the API again.
        with suppress(Exception):
            await self._drop_recorded()
            for ended in self._ended.values():
                if anyio.current_time() - ended.reported_at > patience:
                    self._report(ended)

    async def _drop_recorded(self) -> None:
        ids = sorted(self._ended)
        final = TaskRunFilterState(type=TaskRunFilterStateType(any_=sorted(TERMINAL_STATES)))
        for start in range(0, len(ids), PAGE_SIZE):
            some = TaskRunFilterId(any_=ids[start : start + PAGE_SIZE])
            wanted = TaskRunFilter(id=some, state=final)
            for task_run in await self._client.read_task_runs(
                task_run_filter=wanted, limit=PAGE_SIZE
            ):
                self._ended.pop(task_run.id, None)


def _is_of(ended: _Ended, flow_run_id: UUID) -> bool:
    return ended.task_run.flow_run_id == flow_run_id


def _is_awaited(ended: _Ended, flow_run_id: UUID) -> bool:
    return ended.awaited and _is_of(ended, flow_run_id)


async def _set_state(client: PrefectClient, task_run: TaskRun) -> None:
    state = task_run.state
    assert state is not None  # noqa: S101 (the engine has set it)
    state = state.model_copy(update={"message": valid_text(state.message or "")})
    try:
        await client.set_task_run_state(task_run.id, state, force=True)
    except ObjectNotFound:
        fields = task_run.model_dump(include={*TaskRunCreate.model_fields} - {"state"})
        created = TaskRunCreate(**fields, state=to_state_create(state))
        document = created.model_dump(mode="json")
        await client.request("POST", "/task_runs/", json=document)
