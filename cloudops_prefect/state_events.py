"""The events of which the Prefect API makes the states of task runs, sent in batches.

Prefect's own way has two threads, which keep the event loop of the run from the interpreter, sends
each event by itself, and drops what comes while the API is away.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
from prefect.events.related import object_as_related_resource, related_resources_from_run_context
from prefect.utilities.text import truncated_to
from pydantic_core import to_json

from cloudops_prefect.delivery import deliver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State, TaskRun
    from prefect.events.schemas.events import RelatedResource

INTERVAL = 0.2
"""Seconds for which an event waits for others."""
BATCH_BYTES = 512 * 1024
PATIENCE = 10.0
"""Seconds for which the API is waited for at the end."""
LONGEST_MESSAGE = 100_000
CLOSE = timedelta(minutes=5)
"""How far apart two events are at most of which one is said to follow the other."""
_NOT_TOLD = {
    "id",
    "created",
    "updated",
    "flow_run_id",
    "state_id",
    "state_type",
    "state_name",
    "state",
    "estimated_start_time_delta",
    "estimated_run_time",
}

logger = logging.getLogger("cloudops_prefect.state_events")


async def related_resources(client: PrefectClient, flow_run: FlowRun) -> list[RelatedResource]:
    """Returns what the events of a flow run's task runs are about besides; to be used inside it."""
    try:
        return await related_resources_from_run_context(client)
    except Exception as error:  # noqa: BLE001 (of all of them only the flow run is needed)
        logger.debug("What run %s is related to can't be read: %s", flow_run.id, error)
        return [object_as_related_resource("flow-run", "flow-run", flow_run)]


def state_event(
    task_run: TaskRun,
    last: State[Any] | None,
    related: Iterable[RelatedResource],
) -> dict[str, Any]:
    """Returns the event that tells of the state that a task run is in.

    Args:
        task_run: As it is now.
        last: The state that the API was told before.
        related: What `related_resources` has returned.
    """
    state = task_run.state
    assert state is not None  # noqa: S101 (it is what is to be told)
    message = truncated_to(LONGEST_MESSAGE, state.message)
    tags = [
        {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
        for tag in task_run.tags
    ]
    event = {
        "id": state.id,
        "occurred": state.timestamp,
        "event": f"prefect.task-run.{state.name}",
        "resource": {
            "prefect.resource.id": f"prefect.task-run.{task_run.id}",
            "prefect.resource.name": task_run.name,
            "prefect.run-count": str(task_run.run_count),
            "prefect.state-message": message,
            "prefect.state-name": state.name or "",
            "prefect.state-timestamp": state.timestamp.isoformat(),
            "prefect.state-type": state.type.value,
            "prefect.orchestration": "client",
        },
        "related": [*tags, *(one.root for one in related)],
        "payload": {
            "intended": {"from": last and last.type.value, "to": state.type.value},
            "initial_state": last and _described(last),
            "validated_state": {**_described(state), "data": None},
            "task_run": task_run.model_dump(mode="json", exclude_none=True, exclude=_NOT_TOLD),
        },
    }
    if last is not None and state.timestamp - last.timestamp < CLOSE:
        event["follows"] = last.id
    return event


def _described(state: State[Any]) -> dict[str, Any]:
    details = state.state_details.model_dump(
        mode="json",
        exclude_none=True,
        exclude_unset=True,
        exclude={"flow_run_id", "task_run_id"},
    )
    return {
        "type": state.type.value,
        "name": state.name,
        "message": truncated_to(LONGEST_MESSAGE, state.message),
        "state_details": details,
    }


class EventSender:
    """Sends events to the API in the order in which they were added, again until it answers.

    `run` goes on until its task is cancelled; `aclose` then sends what is left.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._queue: list[bytes] = []
        self._added = self._delivered = 0
        self._woken = anyio.Event()
        self._hurried = anyio.Event()
        self._ticked = anyio.Event()

    def add(self, event: dict[str, Any]) -> None:
        """Queues an event."""
        self._queue.append(to_json(event))
        self._added += 1
        self._woken.set()

    async def flush(self) -> None:
        """Waits until the API has what was added, however long it does not answer."""
        wanted = self._added
        while self._delivered < wanted:
            self._hurried.set()
            await self._ticked.wait()

    async def run(self) -> None:
        """Sends what there is every `INTERVAL` seconds, at once if somebody waits for it."""
        while True:
            await self._woken.wait()
            with anyio.move_on_after(INTERVAL):
                await self._hurried.wait()
            self._woken, self._hurried = anyio.Event(), anyio.Event()
            await self._send_all()

    async def aclose(self) -> None:
        """Sends what is left once `run` has ended, for at most `PATIENCE` seconds."""
        with anyio.move_on_after(PATIENCE, shield=True):
            await self._send_all()

    async def _send_all(self) -> None:
        # What comes meanwhile is left to the next turn: it would go event by event.
        wanted = self._added
        while self._delivered < wanted:
            batch = self._batch()
            await deliver(self._send, batch)
            del self._queue[: len(batch)]
            self._delivered += len(batch)
            self._ticked.set()
            self._ticked = anyio.Event()

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        room = BATCH_BYTES
        for event in self._queue:
            if batch and len(event) > room:
                break
            batch.append(event)
            room -= len(event)
        return batch

    async def _send(self, events: list[bytes]) -> None:
        body = b"[" + b",".join(events) + b"]"
        headers = {"Content-Type": "application/json"}
        await self._client.request("POST", "/events", content=body, headers=headers)
