"""Nothing is lost at exit: once an engine is closed, the API knows how everything ended."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
import pytest
from engines import PROGRAMS, shell
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from servers import with_migrated_database, without_api

from cloudops_prefect import DependencyGraphStrategy, ExecutionEngine, ExecutionPlan

pytestmark = pytest.mark.server
TIMES = 20
LANES = 4
PLAN = ExecutionPlan(
    strategy=DependencyGraphStrategy(dependencies={1: [0], 3: [2]}),
    commands=[shell(one) for one in ("echo a", "echo b", "exit 3", "echo never", "echo c")],
)
ENDED = {"COMPLETED": 3, "FAILED": 1, "CANCELLED": 1}


@pytest.mark.anyio
async def test_the_api_knows_every_end_as_soon_as_an_engine_is_closed(api, config):
    async def open_and_close() -> None:
        for _ in range(TIMES // LANES):
            async with ExecutionEngine(config) as engine:
                execution_id = await engine.execute_plan(PLAN)
                await engine.wait(execution_id, timeout=60)
            assert await task_run_states(execution_id) == ENDED

    async with anyio.create_task_group() as tasks:
        for _ in range(LANES):
            tasks.start_soon(open_and_close)


@pytest.mark.anyio
async def test_the_api_knows_every_end_of_what_an_engine_cancelled_when_it_was_closed(api, config):
    plan = ExecutionPlan(commands=[shell("sleep 60"), shell("echo never")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
    assert await task_run_states(execution_id) == {"CANCELLED": 2}


def test_the_end_of_the_event_loop_cancels_what_has_just_been_started(api, config):
    plan = ExecutionPlan(commands=[shell("sleep 60"), shell("echo never")])
    execution_id = asyncio.run(start(config, plan))
    assert asyncio.run(task_run_states(execution_id)) == {"CANCELLED": 2}


async def start(config, plan: ExecutionPlan):
    return await ExecutionEngine(config).execute_plan(plan)


async def task_run_states(flow_run_id) -> dict[str, int]:
    wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
    async with get_client() as client:
        types = [
            run.state_type.value for run in await client.read_task_runs(task_run_filter=wanted)
        ]
    return {one: types.count(one) for one in types}


def test_the_ephemeral_server_has_every_end_when_the_process_has_ended(tmp_path):
    database = with_migrated_database(tmp_path)
    argv = [sys.executable, str(PROGRAMS / "opens_and_closes.py"), "2", "60"]
    env = without_api(tmp_path)
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert recorded_states(database) == {"COMPLETED": 120}


def test_the_ephemeral_server_ends_with_a_process_that_is_killed(tmp_path):
    argv = [sys.executable, str(PROGRAMS / "opens_and_closes.py"), "1", "1"]
    with subprocess.Popen(argv, env=without_api(tmp_path)) as process:
        try:
            server = asyncio.run(until_found(lambda: server_of(process.pid)))
        finally:
            process.kill()
    server.wait(240)


def server_of(pid: int) -> psutil.Process | None:
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):
            if "cloudops_prefect.server_process" in child.cmdline():
                return child
    return None


async def until_found(find: Callable[[], psutil.Process | None]) -> psutil.Process:
    with anyio.fail_after(60):
        while (found := find()) is None:
            await anyio.sleep(0.05)
    return found


def recorded_states(database: Path) -> dict[str, int]:
    connection = sqlite3.connect(database)
    try:
        query = "select state_type, count(*) from task_run group by state_type"
        return dict(connection.execute(query).fetchall())
    finally:
        connection.close()


def test_the_end_of_the_loop_that_an_engine_is_used_in_next_is_a_cancellation_too(api, config):
    engine = ExecutionEngine(config)
    plan = ExecutionPlan(commands=[shell("sleep 60"), shell("echo never")])
    # It ends without a word to its tasks.
    first = asyncio.new_event_loop()
    first.run_until_complete(engine.execute_plan(ExecutionPlan(commands=[shell("true")])))
    first.close()

    async def start_again():
        return await engine.execute_plan(plan)

    execution_id = asyncio.run(start_again())
    assert asyncio.run(task_run_states(execution_id)) == {"CANCELLED": 2}
    asyncio.run(engine.aclose())
