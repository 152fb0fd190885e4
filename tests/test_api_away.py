"""The API goes away in the middle of a plan, and comes back."""

import os

import anyio
import pytest
from engines import gated, until
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.settings import PREFECT_API_URL, temporary_settings
from servers import PrefectServer, send_what_is_queued

from cloudops_prefect import ExecutionEngine, ExecutionPlan, ExecutionStatus

pytestmark = [pytest.mark.anyio, pytest.mark.server]
SECONDS = float(os.environ.get("CLOUDOPS_TEST_OUTAGE", "0"))


@pytest.fixture
def server(tmp_path):
    # Prefect's worker of events stays with the server that it was begun with.
    send_what_is_queued()
    server = PrefectServer(tmp_path)
    server.start()
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield server
        send_what_is_queued()
    server.stop()


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
