"""The API goes away in the middle of a plan, and comes back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from engines import gated, shell, until
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.settings import PREFECT_API_URL, temporary_settings
from servers import PrefectServer, send_what_is_queued
from workers import ask, create_pool, deploy, deployments, process_worker

from cloudops_prefect import ExecutionEngine, ExecutionPlan, ExecutionStatus

pytestmark = [pytest.mark.anyio, pytest.mark.server]
SECONDS = float(os.environ.get("CLOUDOPS_TEST_OUTAGE", "0"))


# A server keeps the ends of task runs in memory for a while, but stores the events of them at once.
RECORDS_NOTHING = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "3600",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.1",
}


@contextmanager
def own_server(home: Path, **variables: str) -> Iterator[PrefectServer]:
    # Prefect's worker of events stays with the server that it was begun with.
    send_what_is_queued()
    server = PrefectServer(home)
    server.start(**variables)
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield server
        send_what_is_queued()
    server.stop()


@pytest.fixture(scope="module")
def kept_server(tmp_path_factory) -> Iterator[PrefectServer]:
    with own_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(kept_server) -> PrefectServer:
    """A server that a test may leave stopped."""
    kept_server.start()
    return kept_server


@pytest.fixture
def forgetful_server(tmp_path) -> Iterator[PrefectServer]:
    """A server that records no task run until it is started once more."""
    with own_server(tmp_path, **RECORDS_NOTHING) as server:
        yield server


@pytest.fixture
def gates(tmp_path):
    """Files that let a plan's three commands go on."""
    return [tmp_path / f"gate{index}" for index in range(3)]


async def has_printed(config, text: str, times: int) -> None:
    async def enough() -> bool:
        logs = [path.read_text() for path in config.resolved_log_dir.glob("*.log")]
        return sum(log.count(text) for log in logs) == times

    await until(enough)


async def test_no_command_is_disturbed_and_the_api_knows_everything_afterwards(
    server, config, gates
):
    plan = ExecutionPlan(commands=[gated(gate, "echo done") for gate in gates])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        await has_printed(config, "ready\n", 1)
        await anyio.to_thread.run_sync(server.stop)
        gates[0].touch()
        await has_printed(config, "ready\n", 2)
        gates[1].touch()
        await has_printed(config, "ready\n", 3)
        await anyio.sleep(SECONDS)
        await anyio.to_thread.run_sync(server.start)
        gates[2].touch()
        result = await engine.wait(execution_id)
    assert result.status is ExecutionStatus.COMPLETED
    assert [one.stdout for one in result.results] == ["ready\ndone\n"] * 3
    async with get_client() as client:
        wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[execution_id]))
        task_runs = await client.read_task_runs(task_run_filter=wanted)
    assert [run.state_name for run in task_runs] == ["Completed"] * 3
    assert all(run.start_time and run.end_time for run in task_runs)


async def test_a_run_that_ends_while_the_api_is_away_ends_in_the_api_too(server, config, gates):
    plan = ExecutionPlan(commands=[gated(gates[0], "exit 3")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        await has_printed(config, "ready\n", 1)
        await anyio.to_thread.run_sync(server.stop)
        gates[0].touch()
        await anyio.to_thread.run_sync(server.start)
        result = await engine.wait(execution_id)
    assert (result.status, result.results[0].exit_code) == (ExecutionStatus.FAILED, 3)
    async with get_client() as client:
        assert (await client.read_flow_run(execution_id)).state_name == "Failed"


async def test_what_is_cancelled_while_the_api_is_away_is_stopped_and_not_waited_for_for_ever(
    server, config, gates, monkeypatch
):
    monkeypatch.setattr("cloudops_prefect.api_timeout.ANSWER_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr("cloudops_prefect.api_timeout.LOOK_INTERVAL_SECONDS", 0.2)
    ends = f"trap 'touch {gates[1]}; exit' TERM; echo ready; while :; do sleep 0.02; done"
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(ExecutionPlan(commands=[shell(ends)]))
        await has_printed(config, "ready\n", 1)
        await anyio.to_thread.run_sync(server.stop)
        with anyio.fail_after(5):
            await engine.cancel(execution_id)
            await until(anyio.Path(gates[1]).exists)
    # Which the next engine reads.
    assert (config.resolved_log_dir / f"{execution_id}.alive").exists()


class Collector:
    def __init__(self) -> None:
        self.events = []

    async def on_event(self, event) -> None:
        self.events.append(event)


async def test_what_a_worker_runs_is_told_line_by_line_over_an_outage(
    server, config, gates, tmp_path
):
    parts = [f"for n in $(seq {first} {first + 49}); do echo $n; done" for first in (1, 51, 101)]
    until_open = [f"until test -e {gate}; do sleep 0.02; done" for gate in gates]
    printing = "; ".join(
        [parts[0], until_open[0], parts[1], "echo away", until_open[1], parts[2]],
    )
    plan = ExecutionPlan(commands=[shell(printing), shell("echo last")])
    lines = [*map(str, range(1, 101)), "away", *map(str, range(101, 151))]
    whole = ["started", *lines, "completed"], ["started", "last", "completed"]
    (home := tmp_path / "worker").mkdir()
    create_pool(server.url, "away")
    await deploy("away")

    async def is_printed() -> bool:
        return any("away" in log.read_text() for log in (home / "logs").glob("*.log"))

    there = Collector()
    with process_worker(server.url, home, "away"):
        async with ExecutionEngine(config, deployments=deployments("away")) as engine:
            execution_id = await engine.with_event_handler(there).execute_plan(plan)
            events = []
            async for event in engine.stream(execution_id):
                events.append(event)
                if getattr(event, "line", None) == "50":
                    await anyio.to_thread.run_sync(server.stop)
                    gates[0].touch()
                    await until(is_printed)
                    await anyio.sleep(SECONDS)
                    await anyio.to_thread.run_sync(server.start)
                    gates[1].touch()
            result = await engine.wait(execution_id, timeout=240)
    assert result.status is ExecutionStatus.COMPLETED
    for told in (events, there.events):
        of_commands = [event for event in told if event.event_type != "progress"]
        for request, expected in zip(plan.commands, whole, strict=True):
            own = [event for event in of_commands if event.request_id == request.id]
            assert [getattr(event, "line", event.event_type) for event in own] == expected
        assert told[-1].completed == 2


async def test_what_a_killed_server_had_not_recorded_of_a_workers_run_is_told_again(
    forgetful_server, config, gates, tmp_path
):
    plan = ExecutionPlan(commands=[*(shell("true") for _ in range(3)), gated(gates[0])])
    (home := tmp_path / "worker").mkdir()
    create_pool(forgetful_server.url, "killed")
    await deploy("killed")

    async def has_told_of_ends() -> bool:
        wanted = {"filter": {"event": {"name": ["prefect.task-run.Completed"]}}}
        answer = await anyio.to_thread.run_sync(
            ask, "POST", f"{forgetful_server.url}/events/filter", wanted
        )
        return answer.json()["total"] == 3

    async def states() -> list[str]:
        wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[execution_id]))
        async with get_client() as client:
            found = await client.read_task_runs(task_run_filter=wanted)
        return sorted(run.state_name for run in found)

    async def all_completed() -> bool:
        return await states() == ["Completed"] * 4

    with process_worker(forgetful_server.url, home, "killed"):
        async with ExecutionEngine(config, deployments=deployments("killed")) as engine:
            execution_id = await engine.execute_plan(plan)
            await until(has_told_of_ends, 240)
            assert await states() == []
            forgetful_server.kill()
            await anyio.to_thread.run_sync(forgetful_server.start)
            gates[0].touch()
            await engine.wait(execution_id, timeout=240)
            await until(all_completed, 30)
