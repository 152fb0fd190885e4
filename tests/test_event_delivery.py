"""The delivery of Prefect's events: to an API that refuses, is not there, or is somebody else's."""

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import anyio
import pytest
from engines import PROGRAMS
from prefect.client.orchestration import PrefectClient
from prefect.events.clients import AssertingEventsClient, EventsClient, NullEventsClient
from prefect.events.schemas.events import Event, Resource
from prefect.events.worker import EventsWorker, ProcessPoolForwardingEventsClient
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLOUD_API_URL,
    temporary_settings,
)
from running import soon
from small_api import SmallApi, small_api

from cloudops_prefect import event_delivery
from cloudops_prefect.event_delivery import EventRouter, EventSender
from cloudops_prefect.prefect_internals import events_client_override

pytestmark = pytest.mark.anyio


class Sending:
    """A sender, the API of the tests' own that it sends to, and the ends that it has sent."""

    def __init__(self, api: SmallApi, client: PrefectClient) -> None:
        self.api = api
        self.ended: list[UUID] = []
        self.sender = EventSender(client, lambda task_run_id, _: self.ended.append(task_run_id))

    @property
    def arrived(self) -> list[str]:
        return [event["event"] for event in self.api.events]

    async def until_arrived(self, events: list[Event]) -> None:
        await soon(lambda: len(self.api.events) >= len(events))
        assert self.arrived == [event.event for event in events]


@asynccontextmanager
async def client_of(api: SmallApi):
    # Prefect's own tries come before ours, and take seconds.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        async with PrefectClient(api.url) as client:
            yield client


@pytest.fixture
async def sending():
    with small_api() as api:
        async with client_of(api) as client, anyio.create_task_group() as tasks:
            sending = Sending(api, client)
            tasks.start_soon(sending.sender.run)
            yield sending
            tasks.cancel_scope.cancel()


@pytest.fixture
async def stopped():
    """A sender that does not run any more."""
    with small_api() as api:
        async with client_of(api) as client:
            yield Sending(api, client)


def event(name: object, flow_run_id: UUID | None = None, **payload) -> Event:
    related = []
    if flow_run_id is not None:
        labels = {
            "prefect.resource.id": f"prefect.flow-run.{flow_run_id}",
            "prefect.resource.role": "flow-run",
        }
        related = [labels]
    resource = Resource({"prefect.resource.id": "shop.release"})
    return Event(event=str(name), resource=resource, related=related, payload=payload)


def end_of(task_run_id: UUID) -> Event:
    resource = Resource(
        {
            "prefect.resource.id": f"prefect.task-run.{task_run_id}",
            "prefect.state-type": "COMPLETED",
        }
    )
    return Event(event="prefect.task-run.Completed", resource=resource)


async def test_events_arrive_in_their_order_and_together(sending):
    events = [event(number) for number in range(100)]
    for one in events:
        sending.sender.add(one)
    await sending.until_arrived(events)
    assert len(sending.api.batches) == 1
    assert Event.model_validate(sending.api.events[7] | {"received": None}).id == events[7].id


async def test_what_comes_bit_by_bit_does_not_go_bit_by_bit(sending):
    events = [event(number) for number in range(200)]
    began = anyio.current_time()
    for one in events:
        sending.sender.add(one)
        await anyio.sleep(0.002)
    turns = (anyio.current_time() - began) / event_delivery.SEND_INTERVAL_SECONDS
    await sending.until_arrived(events)
    assert len(sending.api.batches) <= turns + 2


async def test_what_is_hurried_does_not_wait_for_its_turn(sending, monkeypatch):
    monkeypatch.setattr(event_delivery, "SEND_INTERVAL_SECONDS", 3600)
    sending.sender.add(event(1))
    await anyio.wait_all_tasks_blocked()
    sending.sender.hurry()
    await soon(lambda: sending.arrived == ["1"])


async def test_what_the_api_finds_too_large_goes_in_parts(sending):
    sending.api.answer = lambda path, size: 201 if size < 3000 else 413
    events = [event(number, text="x" * 500) for number in range(20)]
    for one in events:
        sending.sender.add(one)
    await sending.until_arrived(events)
    assert len(sending.api.batches) > 1


async def test_a_batch_is_bounded_and_an_event_above_that_goes_alone(sending, monkeypatch):
    monkeypatch.setattr(event_delivery, "BATCH_BYTES", 2000)
    events = [event(0, text="x" * 5000), *(event(number) for number in range(1, 20))]
    for one in events:
        sending.sender.add(one)
    await sending.until_arrived(events)
    assert [one["event"] for one in sending.api.batches[0]] == ["0"]
    assert 2 < len(sending.api.batches) < len(events)


async def test_nothing_is_lost_while_the_api_is_away(sending):
    sending.api.answer = lambda path, size: 502
    own = uuid4()
    events = [end_of(own), event(2)]
    sending.sender.add(events[0])
    await soon(lambda: sending.api.asked)
    sending.sender.add(events[1])
    await soon(lambda: sending.sender.ended_in_queue() == {own})
    assert sending.ended == []
    sending.api.answer = lambda path, size: 201
    await sending.until_arrived(events)
    await soon(lambda: sending.ended == [own])
    assert sending.sender.ended_in_queue() == set()


async def test_an_event_that_only_looks_like_an_end_is_delivered_like_any_other(sending):
    labels = {"prefect.resource.id": "shop.release", "prefect.state-type": "COMPLETED"}
    of_a_flow = {"prefect.resource.id": f"prefect.flow-run.{uuid4()}"}
    events = [
        Event(event="released", resource=Resource(labels)),
        Event(event="ended", resource=Resource(labels | of_a_flow)),
    ]
    for one in events:
        sending.sender.add(one)
    await sending.until_arrived(events)
    assert sending.ended == []


async def test_closing_sends_what_is_left(stopped):
    events = [event(number) for number in range(3)]
    for one in events:
        stopped.sender.add(one)
    await anyio.lowlevel.checkpoint()
    await stopped.sender.aclose()
    assert stopped.arrived == ["0", "1", "2"]


async def test_closing_ends_also_if_the_api_never_answers(stopped, monkeypatch):
    monkeypatch.setattr(event_delivery, "CLOSE_TIMEOUT_SECONDS", 0.5)
    stopped.api.answer = lambda path, size: 502
    stopped.sender.add(event(1))
    await anyio.lowlevel.checkpoint()
    with anyio.fail_after(10):
        await stopped.sender.aclose()
    assert (stopped.api.asked > 0, stopped.arrived) == (True, [])


@pytest.fixture
def nobodys_client():
    """Prefect's own choice of an events client, whatever a test does."""
    before = events_client_override()
    EventsWorker.set_client_override(None)
    yield
    client, options = before or (None, {})
    EventsWorker.set_client_override(client, **options)


@pytest.mark.usefixtures("nobodys_client")
@pytest.mark.parametrize(
    "set_before", [None, (NullEventsClient, {}), (AssertingEventsClient, {"a": 1})]
)
async def test_the_events_client_is_afterwards_what_it_was_before(stopped, set_before):
    if set_before is not None:
        EventsWorker.set_client_override(set_before[0], **set_before[1])
    router = EventRouter()
    with router.routed(uuid4(), stopped.sender), router.routed(uuid4(), stopped.sender) as routed:
        assert routed
        override = events_client_override()
        assert override == (ProcessPoolForwardingEventsClient, {"event_queue": router})
    assert events_client_override() == set_before


@pytest.mark.usefixtures("nobodys_client")
async def test_a_client_that_somebody_sets_meanwhile_stays(stopped):
    router = EventRouter()
    with router.routed(uuid4(), stopped.sender):
        EventsWorker.set_client_override(NullEventsClient)
    assert events_client_override() == (NullEventsClient, {})


@pytest.mark.usefixtures("nobodys_client")
async def test_nothing_is_routed_on_prefect_cloud(stopped):
    cloud = f"{PREFECT_CLOUD_API_URL.value()}/accounts/{uuid4()}/workspaces/{uuid4()}"
    router = EventRouter()
    with temporary_settings({PREFECT_API_URL: cloud}), router.routed(uuid4(), stopped.sender) as on:
        assert not on
        assert events_client_override() is None


class Record:
    """The events that have come to the clients of somebody else."""

    def __init__(self) -> None:
        self.events: list[str] = []


class RecordingClient(EventsClient):
    def __init__(self, record: Record) -> None:
        self._record = record

    async def _emit(self, event: Event) -> None:
        self._record.events.append(event.event)


@pytest.mark.usefixtures("nobodys_client")
async def test_events_go_by_their_flow_run_and_others_to_the_client_that_somebody_has_set(stopped):
    EventsWorker.set_client_override(RecordingClient, record=(theirs := Record()))
    ours, other = uuid4(), uuid4()
    router = EventRouter()
    has_api = temporary_settings({PREFECT_API_URL: stopped.api.url})
    with has_api, router.routed(ours, stopped.sender):
        for number, flow_run_id in enumerate((ours, other, None, ours)):
            router.put(("event", event(number, flow_run_id)))
        await soon(lambda: len(theirs.events) == 2)
    assert theirs.events == ["1", "2"]
    await stopped.sender.aclose()
    assert stopped.arrived == ["0", "3"]


@pytest.mark.server
def test_events_of_another_flow_of_the_process_go_by_prefects_own_client(prefect_api, tmp_path):
    argv = [sys.executable, str(PROGRAMS / "runs_beside.py"), str(tmp_path / "gate")]
    env = os.environ | {"PREFECT_API_URL": prefect_api, "CLOUDOPS_LOG_DIR": str(tmp_path)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "theirs: 20 completed",
        "theirs: by Prefect's client",
        "ours: 1 completed",
        "None",
    ]
