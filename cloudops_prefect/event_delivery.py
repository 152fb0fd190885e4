"""Delivery of the events that Prefect emits for our flow runs, in batches.

Prefect's task engine emits the states of task runs as events. Prefect's own client sends each by
itself and drops those that it can't send while the API is away; here they wait for the API.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import UUID

import anyio
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.context import SettingsContext, get_settings_context
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import (
    EventsWorker,
    ProcessPoolForwardingEventsClient,
    emit_events_to_cloud,
)
from prefect.settings import get_current_settings
from pydantic_core import PydanticSerializationError

from cloudops_prefect.delivery import deliver
from cloudops_prefect.prefect_internals import events_client_override
from cloudops_prefect.unicode_text import valid_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from prefect.client.orchestration import PrefectClient
    from prefect.events.clients import EventsClient
    from prefect.events.schemas.events import Event

    from cloudops_prefect.prefect_internals import EventsClientOverride

SEND_INTERVAL_SECONDS = 0.2
BATCH_BYTES = 512 * 1024
CLOSE_TIMEOUT_SECONDS = 10.0
_FLOW_RUN = "prefect.flow-run"
_TASK_RUN = "prefect.task-run"
_FINAL = {state_type.value for state_type in TERMINAL_STATES}

logger = logging.getLogger("cloudops_prefect.event_delivery")


class SentEvent(NamedTuple):
    """An event as JSON, and the task run whose final state it reports, if it does."""

    body: bytes
    ended: UUID | None


class EventSender:
    """Send events to the API in the order in which they were added, again until it answers.

    `run` goes on until its task is cancelled; `aclose` then sends what is left.

    Args:
        client: A client of the API, to be used in the current event loop.
        on_sent: Is called with each task run whose final state the API has taken, and the event.
    """

    def __init__(self, client: PrefectClient, on_sent: Callable[[UUID, SentEvent], object]) -> None:
        self._client = client
        self._on_sent = on_sent
        self._loop = asyncio.get_running_loop()
        self._queue: list[SentEvent] = []
        self._woken = anyio.Event()
        self._hurried = anyio.Event()

    def add(self, event: Event) -> None:
        """Queue an event, from any thread.

        Raises:
            RuntimeError: The event loop of this sender is closed.
        """
        queued = SentEvent(_json_of(event), _ended_task_run(event))
        self._loop.call_soon_threadsafe(self.add_again, queued)

    def add_again(self, event: SentEvent) -> None:
        """Queue an event that has been sent before, from the event loop of this sender."""
        self._queue.append(event)
        self._woken.set()

    def give_up(self, error: BaseException) -> None:  # noqa: ARG002 (that `run` has failed is enough)
        """Drop what is queued, when `run` has failed: the ledger sets the states without events."""
        self._queue.clear()

    def hurry(self) -> None:
        """Send what is queued at once."""
        self._hurried.set()

    def ended_in_queue(self) -> set[UUID]:
        """Return the task runs whose final state waits to be sent."""
        return {queued.ended for queued in self._queue if queued.ended is not None}

    async def run(self) -> None:
        """Send what is queued every `SEND_INTERVAL_SECONDS`, or when `hurry` asks for it."""
        while True:
            await self._woken.wait()
            with anyio.move_on_after(SEND_INTERVAL_SECONDS):
                await self._hurried.wait()
            self._woken, self._hurried = anyio.Event(), anyio.Event()
            await self._send_all()

    async def aclose(self) -> None:
        """Send what is left once `run` has ended, for at most `CLOSE_TIMEOUT_SECONDS`."""
        with anyio.move_on_after(CLOSE_TIMEOUT_SECONDS, shield=True):
            try:
                await self._send_all()
            except Exception:
                logger.exception("Events could not be sent")

    async def _send_all(self) -> None:
        # Events that arrive meanwhile wait for the next turn, or each would be sent by itself.
        waiting = len(self._queue)
        while waiting > 0:
            batch = self._batch()
            await deliver(self._post, [queued.body for queued in batch])
            del self._queue[: len(batch)]
            waiting -= len(batch)
            for queued in batch:
                if queued.ended is not None:
                    self._on_sent(queued.ended, queued)

    def _batch(self) -> list[SentEvent]:
        batch: list[SentEvent] = []
        room = BATCH_BYTES
        for queued in self._queue:
            if batch and len(queued.body) > room:
                break
            batch.append(queued)
            room -= len(queued.body)
        return batch

    async def _post(self, events: list[bytes]) -> None:
        body = b"[" + b",".join(events) + b"]"
        headers = {"Content-Type": "application/json"}
        await self._client.request("POST", "/events", content=body, headers=headers)


def _json_of(event: Event) -> bytes:
    try:
        return event.model_dump_json().encode()
    except PydanticSerializationError:
        # The message of an exception has bytes of a file name that is not UTF-8.
        text = json.dumps(event.model_dump(mode="json"), ensure_ascii=False)
        return valid_text(text).encode()


def _ended_task_run(event: Event) -> UUID | None:
    """Return the task run whose final state an event reports, None for any other event."""
    is_final = event.resource.get("prefect.state-type") in _FINAL
    kind, _, own = event.resource.id.rpartition(".")
    return UUID(own) if is_final and kind == _TASK_RUN else None


class EventRouter:
    """Give the events of our flow runs to the senders of their event loops.

    Prefect's events worker serves the whole process. While a flow run is routed, the worker puts
    its events here, as it would into the queue of a process pool; those of other flows go on to
    Prefect's own client, or to one that somebody else has set. On Prefect Cloud nothing is routed:
    its client is the documented way.
    """

    def __init__(self) -> None:
        self._senders: dict[str, EventSender] = {}
        self._lock = threading.Lock()
        self._override = (ProcessPoolForwardingEventsClient, {"event_queue": self})
        self._previous: EventsClientOverride | None = None
        self._others_client: type[EventsClient] = PrefectEventsClient

    @contextmanager
    def routed(self, flow_run_id: UUID, sender: EventSender) -> Generator[bool]:
        """Send the events of a flow run by `sender`; yield whether that is done."""
        if emit_events_to_cloud():
            yield False
            return
        resource = f"{_FLOW_RUN}.{flow_run_id}"
        self._add(resource, sender)
        try:
            yield True
        finally:
            self._remove(resource)

    def put(self, item: tuple[str, Event]) -> None:
        """Take an event from Prefect's events worker, in that worker's thread."""
        _, event = item
        sender = self._sender_of(event)
        with suppress(RuntimeError):
            if sender is not None:
                sender.add(event)
                return
        with self._lock:
            client = self._others_client
        _send_outside_of_runs(client, event)

    def _sender_of(self, event: Event) -> EventSender | None:
        with self._lock:
            for resource in event.involved_resources:
                if (sender := self._senders.get(resource.id)) is not None:
                    return sender
            # Without a configured API all flows of the process share one temporary server.
            if get_current_settings().api.url is None:
                return next(iter(self._senders.values()), None)
        return None

    def _add(self, resource: str, sender: EventSender) -> None:
        with self._lock:
            if not self._senders:
                self._begin()
            self._senders[resource] = sender

    def _remove(self, resource: str) -> None:
        with self._lock:
            self._senders.pop(resource, None)
            # A client that somebody has set meanwhile stays.
            if not self._senders and events_client_override() in (None, self._override):
                client, options = self._previous or (None, {})
                EventsWorker.set_client_override(client, **options)

    def _begin(self) -> None:
        self._previous = events_client_override()
        self._others_client = PrefectEventsClient
        if self._previous is not None:
            client, options = self._previous
            self._others_client = _with_options(client, tuple(options.items()))
        client, options = self._override
        EventsWorker.set_client_override(client, **options)


def _send_outside_of_runs(client: type[EventsClient], event: Event) -> None:
    """Send an event by a worker of Prefect's that adds nothing to it.

    The context here is that of the run whose event came first: Prefect would relate the event, and
    all others of a worker that begins here, to that run.
    """
    current = get_settings_context()
    settings = SettingsContext(profile=current.profile, settings=current.settings)

    def send() -> None:
        with settings:
            EventsWorker.instance(client).send(event)

    Context().run(send)


@cache
def _with_options(
    client: type[EventsClient], options: tuple[tuple[str, Any], ...]
) -> type[EventsClient]:
    """Return what makes such a client, the same each time: Prefect has a worker for each."""
    return cast("type[EventsClient]", partial(client, **dict(options))) if options else client


event_router = EventRouter()
