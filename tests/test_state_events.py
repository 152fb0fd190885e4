"""The events of task runs: what they say, and their way to an API that refuses or is not there."""

from datetime import UTC, datetime
from uuid import uuid4

import anyio
import pytest
from engines import gated, shell
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import TaskRun, TaskRunResult
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed, Running
from prefect.utilities.engine import emit_task_run_state_change_event
from running import soon
from small_api import small_api

from cloudops_prefect import ExecutionEngine, ExecutionPlan, recording, state_events
from cloudops_prefect.recording import TaskRunRecord
from cloudops_prefect.state_events import EventSender, state_event

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sending():
    """An API of our own, and who sends events to it."""
    # Prefect's own tries come before ours, and take seconds.
    with small_api() as api, temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        async with PrefectClient(api.url) as client, anyio.create_task_group() as tasks:
            sender = EventSender(client)
            tasks.start_soon(sender.run)
            yield api, sender
            tasks.cancel_scope.cancel()


def task_run() -> TaskRun:
    return TaskRun(
        id=uuid4(),
        name="make it",
        task_key="run_shell-1",
        dynamic_key="2",
        tags=["nightly"],
        task_inputs={"wait_for": [TaskRunResult(id=uuid4())]},
    )


def enter(task_run: TaskRun, state) -> None:
    task_run.state, task_run.state_id = state, state.id


@pytest.mark.server
@pytest.mark.usefixtures("api")
async def test_events_are_those_that_prefect_makes():
    one, last, theirs = task_run(), None, None
    for state in (Running(), Completed(message="it is made")):
        enter(one, state)
        theirs = emit_task_run_state_change_event(one, last, state, follows=theirs)
        ours = state_event(one, last, related=[])
        assert type(theirs).model_validate(ours) == theirs
        last = state


async def test_they_arrive_in_their_order_and_together(sending):
    api, sender = sending
    wanted = [{"number": number} for number in range(100)]
    for event in wanted:
        sender.add(event)
    await sender.flush()
    assert api.batches == [wanted]


async def test_what_comes_bit_by_bit_does_not_go_bit_by_bit(sending):
    api, sender = sending
    began = anyio.current_time()
    for number in range(200):
        sender.add({"number": number})
        await anyio.sleep(0.002)
    turns = (anyio.current_time() - began) / state_events.INTERVAL
    await sender.flush()
    assert len(api.events) == 200
    assert len(api.batches) <= turns + 2


async def test_a_flush_waits_for_what_is_added_before_it_and_for_nothing_else(sending):
    api, sender = sending
    sender.add({"number": 1})
    await sender.flush()
    await sender.flush()
    assert api.events == [{"number": 1}]


async def test_what_is_too_large_goes_in_parts(sending, monkeypatch):
    api, sender = sending
    api.answer = lambda path, size: 201 if size < 1000 else 413
    wanted = [{"number": number, "text": "x" * 200} for number in range(20)]
    for event in wanted:
        sender.add(event)
    await sender.flush()
    assert api.events == wanted

    monkeypatch.setattr(state_events, "BATCH_BYTES", 1)
    api.batches.clear()
    sender.add(wanted[0])
    sender.add(wanted[1])
    await sender.flush()
    assert api.batches == [wanted[:1], wanted[1:2]]


async def test_nothing_is_lost_while_the_api_is_away(sending):
    api, sender = sending
    api.answer = lambda path, size: 502
    sender.add({"number": 1})
    await soon(lambda: api.asked)
    sender.add({"number": 2})
    api.answer = lambda path, size: 201
    with anyio.fail_after(10):
        await sender.flush()
    assert api.events == [{"number": 1}, {"number": 2}]


async def test_a_short_task_run_is_told_of_by_its_end_alone(sending):
    api, sender = sending
    record = TaskRunRecord(task_run(), [], sender)
    record.begin(lambda: None)
    record.end(Completed())
    long = TaskRunRecord(task_run(), [], sender)
    long.begin(lambda: None)
    await soon(lambda: len(api.events) == 2)
    long.end(Completed())
    await sender.flush()
    assert [event["event"] for event in api.events] == [
        "prefect.task-run.Completed",
        "prefect.task-run.Running",
        "prefect.task-run.Completed",
    ]
    assert api.events[2]["follows"] == api.events[1]["id"]


@pytest.mark.server
async def test_a_recorded_task_run_has_its_times_and_its_edges_also_if_it_was_short(
    api, config, tmp_path, monkeypatch
):
    """However long the two take, the first is short and the second is not."""
    gate = tmp_path / "gate"
    plan = ExecutionPlan(commands=[gated(gate), shell("true")])
    monkeypatch.setattr(recording, "BREVITY", 3600)
    earliest = datetime.now(UTC)
    async with ExecutionEngine(config) as engine, get_client() as client:
        execution_id = await engine.execute_plan(plan)
        async for event in engine.stream(execution_id):
            if event.event_type == "stdout":
                monkeypatch.setattr(recording, "BREVITY", 0)
                gate.touch()
        result = await engine.wait(execution_id)
        latest = datetime.now(UTC)
        short, long = (one.execution_id for one in result.results)
        await engine.aclose()
        runs = [await client.read_task_run(one) for one in (short, long)]
        histories = [
            [state.name for state in await client.read_task_run_states(one)]
            for one in (short, long)
        ]
    assert histories == [["Completed"], ["Running", "Completed"]]
    for run, told in zip(runs, result.results, strict=True):
        assert run.run_count == 1
        assert earliest <= run.start_time == told.started_at
        assert told.completed_at <= run.end_time <= latest
        assert told.duration <= run.total_run_time <= latest - run.start_time
        earliest = told.completed_at
    assert runs[1].task_inputs["wait_for"] == [TaskRunResult(id=short)]
