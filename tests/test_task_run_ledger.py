"""Task runs that have ended, until the API has recorded how."""

from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID, uuid4

import anyio
import pytest
from prefect import get_client
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from cloudops_prefect import run_shell, task_run_ledger
from cloudops_prefect.event_delivery import SentEvent
from cloudops_prefect.task_run_ledger import TaskRunLedger

pytestmark = pytest.mark.anyio
RUN = uuid4()


def ended(flow_run_id: UUID = RUN) -> TaskRun:
    state = Completed(message="it is made")
    return TaskRun(
        id=uuid4(),
        name="make it",
        task_key="run_shell-1",
        dynamic_key="2",
        flow_run_id=flow_run_id,
        state=state,
        state_id=state.id,
        start_time=datetime.now(UTC),
    )


class Api:
    """An API as the ledger knows it.

    Attributes:
        recorded: The task runs whose ends it has recorded.
        failures: How many of the next looks fail.
        set: The task runs whose state was set by a call.
        events: What was posted as events.
    """

    def __init__(self) -> None:
        self.recorded: set[UUID] = set()
        self.failures = 0
        self.set: list[UUID] = []
        self.events: list[bytes] = []

    async def read_task_runs(self, *, task_run_filter, limit):
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError
        return [SimpleNamespace(id=one) for one in task_run_filter.id.any_ if one in self.recorded]

    async def set_task_run_state(self, task_run_id, state, *, force):
        self.set.append(task_run_id)

    async def request(self, method, path, *, content, headers):
        self.events.append(content)


@pytest.fixture
def api_of_ours():
    return Api()


@pytest.fixture
async def ledger(api_of_ours):
    """A ledger whose events are sent, and whose own looks come when a test asks for them."""
    ledger = TaskRunLedger(api_of_ours)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.events.run)
        yield ledger
        tasks.cancel_scope.cancel()


def sent(task_run: TaskRun, body: bytes = b"{}") -> SentEvent:
    return SentEvent(body, task_run.id)


async def test_an_end_is_sent_once_the_api_has_taken_its_event(ledger, api_of_ours):
    task_run = ended()
    ledger.add(task_run, routed=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.until_sent, RUN)
        await anyio.wait_all_tasks_blocked()
        ledger.events.add_again(sent(task_run, b'{"mine": 1}'))
    assert api_of_ours.events == [b'[{"mine": 1}]']
    assert api_of_ours.set == []


async def test_an_event_may_be_taken_before_its_task_run_is_added(ledger, api_of_ours, monkeypatch):
    monkeypatch.setattr(task_run_ledger, "EVENT_TIMEOUT_SECONDS", 3600)
    task_run = ended()
    ledger.events.add_again(sent(task_run))
    ledger.events.hurry()
    with anyio.fail_after(10):
        while not api_of_ours.events:
            await anyio.sleep(0.01)
        ledger.add(task_run, routed=True)
        await ledger.until_sent(RUN)
    assert api_of_ours.set == []


async def test_an_end_whose_event_never_comes_is_set_by_a_call(ledger, api_of_ours, monkeypatch):
    monkeypatch.setattr(task_run_ledger, "EVENT_TIMEOUT_SECONDS", 0.1)
    first, second = ended(), ended()
    ledger.add(first, routed=True)
    ledger.add(second, routed=True)
    with anyio.fail_after(10):
        await ledger.until_sent(RUN)
    assert sorted(api_of_ours.set) == sorted([first.id, second.id])


async def test_only_ends_of_the_flow_run_whose_events_are_routed_are_waited_for(
    ledger, api_of_ours
):
    ledger.add(ended(uuid4()), routed=True)
    ledger.add(ended(), routed=False)
    with anyio.fail_after(0.5):
        await ledger.until_sent(RUN)
    assert api_of_ours.set == []


async def test_a_look_that_fails_is_not_the_last_one(ledger, api_of_ours):
    task_run = ended()
    ledger.add(task_run, routed=False)
    api_of_ours.failures, api_of_ours.recorded = 2, {task_run.id}
    with anyio.fail_after(10):
        await ledger.until_recorded()
    assert api_of_ours.failures == 0


async def test_the_wait_for_a_record_ends_and_says_how_many_are_missing(
    ledger, api_of_ours, monkeypatch, caplog
):
    monkeypatch.setattr(task_run_ledger, "CLOSE_TIMEOUT_SECONDS", 0.3)
    one, other = ended(), ended()
    ledger.add(one, routed=False)
    ledger.add(other, routed=False)
    api_of_ours.recorded = {one.id}
    with anyio.fail_after(10):
        await ledger.until_recorded()
    assert "The API has not recorded the end of 1 task runs" in caplog.text


async def test_what_a_dead_server_had_not_recorded_is_sent_again_and_nothing_else(
    ledger, api_of_ours
):
    known, lost, fresh = ends = [ended() for _ in range(3)]
    for number, task_run in enumerate(ends):
        ledger.add(task_run, routed=True)
        ledger.events.add_again(sent(task_run, b"%d" % number))
    await ledger.until_sent(RUN)
    assert api_of_ours.events == [b"[0,1,2]"]
    # As if a server had had the time to start again since.
    for task_run in (known, lost):
        ledger._ended[task_run.id].reported_at -= task_run_ledger.SERVER_RESTART_SECONDS + 1
    api_of_ours.recorded = {known.id}
    await ledger.report_lost()
    ledger.events.hurry()
    with anyio.fail_after(10):
        while len(api_of_ours.events) < 2:
            await anyio.sleep(0.01)
    assert api_of_ours.events[1:] == [b"[1]"]
    assert ledger._ended.keys() == {lost.id, fresh.id}


async def test_a_run_that_is_forgotten_is_not_waited_for(ledger, api_of_ours):
    ledger.add(ended(), routed=True)
    ledger.forget(RUN)
    with anyio.fail_after(0.5):
        await ledger.until_sent(RUN)
        await ledger.until_recorded()


@pytest.mark.server
@pytest.mark.parametrize("known", [True, False], ids=["begun", "unknown"])
async def test_a_state_that_is_set_by_a_call_is_at_the_api_with_its_task_run(
    api, monkeypatch, known
):
    monkeypatch.setattr(task_run_ledger, "EVENT_TIMEOUT_SECONDS", 0.1)
    task_run = ended(None)
    async with get_client() as client:
        if known:
            await client.create_task_run(run_shell, None, dynamic_key="2", id=task_run.id)
        else:
            with pytest.raises(ObjectNotFound):
                await client.read_task_run(task_run.id)
        ledger = TaskRunLedger(client)
        ledger.add(task_run, routed=True)
        await ledger.until_sent(None)
        with anyio.fail_after(20):
            await ledger.until_recorded()
        stored = await client.read_task_run(task_run.id)
    assert (stored.state_name, stored.state.message) == ("Completed", "it is made")
    assert stored.name == "make it" or known
