"""The tasks in flows of the user's own, with whatever options these give them."""

import asyncio
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from engines import exec_, most_at_once, overlapping, shell, until
from prefect import flow, get_client, tags
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterName
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from cloudops_prefect import (
    ExecutionPlan,
    ExecutionTimeoutError,
    ParallelStrategy,
    SerialStrategy,
    compile_plan,
    run_exec,
    run_shell,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]


@pytest.fixture
def storage(api, tmp_path):
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "storage"}):
        yield


async def test_equal_commands_run_twice_and_failed_ones_again_also_where_results_are_persisted(
    storage, tmp_path
):
    counter = tmp_path / "counter"
    request = shell(f"echo x >> {counter}; test $(wc -l < {counter}) -gt 1")

    @flow(retries=1)
    async def release():
        run = run_shell.with_options(persist_result=True)
        return [await run(request), await run(request)]

    results = await release()
    assert [one.status for one in results] == ["completed"] * 2
    assert counter.read_text().count("x") == 3


async def test_pwd_names_the_directory_of_the_command(storage):
    @flow
    async def release():
        return await run_exec(exec_("printenv", "PWD", working_dir=Path("/usr")))

    assert (await release()).stdout == "/usr\n"


async def test_a_timeout_says_how_long_the_command_had(storage, monkeypatch):
    monkeypatch.setenv("CLOUDOPS_DEFAULT_TIMEOUT_MS", "200")

    @flow
    async def release():
        await run_shell(shell("sleep 60"))

    with pytest.raises(ExecutionTimeoutError, match="Execution timeout after 200ms"):
        await release()


async def test_the_limit_of_a_tag_holds_for_the_commands_of_a_plan(storage, tmp_path):
    async with get_client() as client:
        limit = await client.create_concurrency_limit(tag="database", concurrency_limit=1)
        record = tmp_path / "record"
        plan = ExecutionPlan(
            commands=[overlapping(record) for _ in range(2)], strategy=ParallelStrategy()
        )
        with tags("database"):
            result = await compile_plan(plan)()
        await client.delete_concurrency_limit_by_tag("database")
    assert limit is not None
    assert (result.status, most_at_once(record)) == ("completed", 1)


async def test_a_task_run_of_a_flow_that_its_caller_cancels_is_told_of_to_its_end(storage):
    name = f"sleeper {uuid4()}"
    plan = ExecutionPlan(commands=[shell("sleep 60", name=name)], strategy=SerialStrategy())
    run = asyncio.create_task(compile_plan(plan)())

    async def is_told(type_: StateType) -> bool:
        wanted = TaskRunFilter(name=TaskRunFilterName(any_=[name]))
        told = await client.read_task_runs(task_run_filter=wanted)
        return [one.state_type for one in told] == [type_]

    async with get_client() as client:
        await until(lambda: is_told(StateType.RUNNING))
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
        await until(lambda: is_told(StateType.CANCELLED))
