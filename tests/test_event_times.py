"""Events are told with the time at which things happened, whoever tells them and whenever."""

import json
from contextlib import suppress
from itertools import pairwise

import anyio
import pytest
from engines import gated, shell
from prefect.client.orchestration import get_client
from prefect.states import Running

from cloudops_prefect import (
    DependencyGraphStrategy,
    ExecutionConfig,
    ExecutionEngine,
    ExecutionPlan,
    ParallelStrategy,
    history,
    local_runs,
)
from cloudops_prefect.cli.app import run_tokens
from cloudops_prefect.liveness import Sign, sign_of_life
from cloudops_prefect.output import OutputLog
from cloudops_prefect.services import open_services
from cloudops_prefect.work import Work

pytestmark = [pytest.mark.anyio, pytest.mark.server]
BOUND = 60
LINES = {"stdout", "stderr"}
ENDS = {"completed", "failed", "cancelled"}


class Collector:
    def __init__(self) -> None:
        self.events = []

    async def on_event(self, event) -> None:
        self.events.append(event)


@pytest.fixture
def elsewhere(tmp_path):
    """Of an engine that has no logs: what it knows of other engines' runs, the API has told it."""
    return ExecutionConfig(log_dir=tmp_path / "elsewhere")


async def read(engine, execution_id) -> list:
    with anyio.fail_after(BOUND):
        return [event async for event in engine.stream(execution_id)]


def by_command(events) -> dict:
    """The events of each command by themselves, those of the plan by its id."""
    found: dict = {}
    for event in events:
        found.setdefault(event.execution_id, []).append(event)
    return found


def lives(events) -> dict:
    """When each command has started and ended."""
    return {
        (event.execution_id, event.event_type): event.timestamp
        for event in events
        if event.event_type in {"started", *ENDS}
    }


def expected_lives(results) -> dict:
    started = {(one.execution_id, "started"): one.started_at for one in results}
    end = {"timeout": "failed"}
    return started | {
        (one.execution_id, end.get(one.status, one.status)): one.completed_at for one in results
    }


def check_order(events) -> None:
    """Nothing of a command, or of the plan's progress, is told as earlier than what came before.

    Two streams of a command have their own order each.
    """
    for own in by_command(events).values():
        for stream in LINES:
            times = [one.timestamp for one in own if one.event_type not in LINES - {stream}]
            assert times == sorted(times), own


async def test_a_plan_is_told_with_its_own_times_at_each_reading(api, config, elsewhere, tmp_path):
    gate = tmp_path / "gate"
    plan = ExecutionPlan(commands=[shell("echo a"), gated(gate, "echo b >&2; exit 3")])
    handler = Collector()
    async with (
        ExecutionEngine(config) as engine,
        ExecutionEngine(config) as beside,
        ExecutionEngine(elsewhere) as other,
    ):
        watched = engine.with_event_handler(handler)
        execution_id = await watched.execute_plan(plan)
        live = []
        # Told by the API while the second command runs.
        async with anyio.create_task_group() as tasks:
            for follower in (engine, beside, other):
                tasks.start_soon(follow_until_ready, follower, execution_id, live)
            with anyio.fail_after(BOUND):
                while len(live) < 3:
                    await anyio.sleep(0.02)
            gate.touch()
        results = (await engine.wait(execution_id)).results
        await watched.aclose()
        readings = [await read(one, execution_id) for one in (beside, other, beside)]
    for events in (*live, *readings, handler.events):
        assert lives(events) == expected_lives(results)
        check_order(events)
    assert readings[0] == readings[2], "to the last progress"


async def follow_until_ready(engine, execution_id, live) -> None:
    """Puts the events into `live` once the gated command is seen to run."""
    events = []
    with anyio.fail_after(BOUND):
        async for event in engine.stream(execution_id):
            events.append(event)
            if getattr(event, "line", None) == "ready":
                live.append(events)


async def test_short_commands_are_told_live_with_their_own_times(api, config):
    """Several of them may begin and end between two looks."""
    commands = [shell(f"echo {number}; true") for number in range(10)]
    handler = Collector()
    async with ExecutionEngine(config) as engine:
        watched = engine.with_event_handler(handler)
        execution_id = await watched.execute_plan(ExecutionPlan(commands=commands))
        results = (await engine.wait(execution_id)).results
        await watched.aclose()
    assert lives(handler.events) == expected_lives(results)
    check_order(handler.events)


@pytest.mark.parametrize("command", ["echo out", "echo out; exit 4", "no-such-program", "sleep 60"])
async def test_a_command_is_told_with_its_own_times_at_each_reading(
    api, config, elsewhere, command
):
    handler = Collector()
    request = shell(command, timeout_ms=1000)
    async with ExecutionEngine(config) as engine, ExecutionEngine(elsewhere) as other:
        watched = engine.with_event_handler(handler)
        execution_id = await watched.execute(request)
        result = await engine.wait(execution_id)
        await watched.aclose()
        readings = [await read(one, execution_id) for one in (engine, other, engine)]
    for events in (*readings, handler.events):
        assert lives(events) == expected_lives([result])
        check_order(events)


async def test_followed_logs_are_the_same_lines_of_json_each_time(api, config, monkeypatch, capfd):
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(config.log_dir))
    plan = ExecutionPlan(commands=[shell("echo a; echo b >&2"), shell("exit 3"), shell("true")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        await engine.wait(execution_id)
    readings = []
    for _ in range(2):
        capfd.readouterr()
        arguments = ["logs", "--follow", "--json", str(execution_id)]
        assert await anyio.to_thread.run_sync(run_tokens, arguments) == 0
        readings.append([json.loads(line) for line in capfd.readouterr().out.splitlines()])
    assert readings[0] == readings[1]
    assert [event["event_type"] for event in readings[0]][-1] == "progress"


async def test_the_progress_of_commands_at_once_never_goes_back_in_time(api, config, elsewhere):
    commands = [shell("sleep 0.5"), shell("true"), shell("sleep 0.2")]
    plan = ExecutionPlan(strategy=ParallelStrategy(), commands=commands)
    async with ExecutionEngine(config) as engine, ExecutionEngine(elsewhere) as other:
        execution_id = await engine.execute_plan(plan)
        results = (await engine.wait(execution_id)).results
        events = await read(other, execution_id)
    progress = [event for event in events if event.event_type == "progress"]
    assert all(one.timestamp <= two.timestamp for one, two in pairwise(progress))
    ends = sorted(one.completed_at for one in results)
    for one in progress:
        assert [end <= one.timestamp for end in ends][: one.completed] == [True] * one.completed
    assert progress[0].timestamp == min(one.started_at for one in results)
    assert progress[-1].timestamp == ends[-1]


async def test_what_never_ran_is_told_with_the_end_of_its_run(api, config, tmp_path):
    gate = tmp_path / "gate"
    one_at_once = config.model_copy(update={"max_concurrent_executions": 1})
    async with ExecutionEngine(one_at_once) as engine:
        first = await engine.execute(gated(gate))
        waiting = await engine.execute(shell("true"))
        plan = ExecutionPlan(
            strategy=DependencyGraphStrategy(dependencies={1: [0]}),
            commands=[shell("true"), shell("true")],
        )
        waiting_plan = await engine.execute_plan(plan)
        for execution_id in (waiting, waiting_plan):
            await engine.cancel(execution_id)
            await engine.wait(execution_id)
        gate.touch()
        await engine.wait(first)
        async with get_client() as client:
            ends = [(await client.read_flow_run(id_)).end_time for id_ in (waiting, waiting_plan)]
        started, cancelled = await read(engine, waiting)
        assert (started.event_type, cancelled.event_type) == ("started", "cancelled")
        assert started.timestamp == cancelled.timestamp == ends[0]
        *_, last = await read(engine, waiting_plan)
        assert (last.event_type, last.timestamp) == ("progress", ends[1])


async def test_what_died_before_the_api_heard_of_it_has_not_started_after_its_first_line(
    api, config
):
    plan = ExecutionPlan(commands=[shell("echo one")])
    async with (
        get_client() as client,
        open_services(config, client) as services,
        ExecutionEngine(config) as engine,
    ):
        flow_run, _ = await local_runs.create_run(services, Work(plan), None)
        await client.set_flow_run_state(flow_run.id, Running(), force=True)
        [begun] = history.commands_of(await history.find(client, flow_run.id), plan)
        with suppress(ProcessLookupError), sign_of_life(config.log_dir, Sign(flow_run.id, 1, api)):
            with OutputLog.open(config.log_path(begun.id), max_output_bytes=100) as log:
                log.write("stdout", b"one\n")
            raise ProcessLookupError
        first, second = [await read(engine, flow_run.id) for _ in range(2)]
    assert [event.event_type for event in by_command(first)[begun.id]] == [
        "started",
        "stdout",
        "failed",
    ]
    check_order(first)
    assert first == second
