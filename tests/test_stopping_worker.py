"""Nothing is left of what is cancelled in the UI, under a worker and under `flow.serve`."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engines import until
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Scheduled
from running import processes
from stopped import ARGV, count_ready, plan_of
from workers import create_pool, environment, process_worker

from cloudops_prefect import ExecutionEngine, ExecutionStatus
from cloudops_prefect.deployments import deploy_plan

pytestmark = [pytest.mark.anyio, pytest.mark.server]
POOL = "stopping"


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def marks():
    return {kind: uuid.uuid4().hex for kind in ARGV}


async def start(deployment_id) -> uuid.UUID:
    async with get_client() as client:
        run = await client.create_flow_run_from_deployment(deployment_id, state=Scheduled())
    return run.id


async def cancel_in_the_ui(flow_run_id) -> None:
    async with get_client() as client:
        await client.set_flow_run_state(flow_run_id, Cancelling(), force=True)


async def has_ended(flow_run_id) -> bool:
    async with get_client() as client:
        state = (await client.read_flow_run(flow_run_id)).state
    return state is not None and state.is_final()


async def check_cancelled(flow_run_id, config) -> None:
    """The run, its task runs and its results all say cancelled, and what was printed is there."""
    await until(lambda: has_ended(flow_run_id), 60)
    async with ExecutionEngine(config) as engine:
        result = await engine.get_plan_result(flow_run_id)
    assert result.status is ExecutionStatus.CANCELLED
    assert {one.status for one in result.results} == {ExecutionStatus.CANCELLED}
    assert all(one.stdout for one in result.results)

    async def names() -> set[str]:
        async with get_client() as client:
            wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
            task_runs = await client.read_task_runs(task_run_filter=wanted)
        return {str(run.state_name) for run in task_runs}

    # Task runs travel as events, and arrive some time after their process has ended.
    async def all_cancelled() -> bool:
        return await names() == {"Cancelled"}

    await until(all_cancelled, 20)


async def test_under_a_worker(api, home, config, marks):
    create_pool(api, POOL)
    plans = {kind: plan_of(kind, mark) for kind, mark in marks.items()}
    with process_worker(api, home, POOL, CLOUDOPS_MAX_CONCURRENT_EXECUTIONS="50"):
        runs = {
            kind: await start(await deploy_plan(plan, name=kind.replace(" ", "-"), work_pool=POOL))
            for kind, plan in plans.items()
        }
        count = sum(len(plan.commands) for plan in plans.values())

        async def all_ready() -> bool:
            return count_ready(home / "logs") == count

        await until(all_ready, 90)
        for flow_run_id in runs.values():
            await cancel_in_the_ui(flow_run_id)

        async def nothing_left() -> bool:
            return not any(map(processes, marks.values()))

        await until(nothing_left, 20)
        for flow_run_id in runs.values():
            await check_cancelled(flow_run_id, config)


SERVES = """
from cloudops_prefect.flows import run_plan
run_plan.serve(name="served", pause_on_shutdown=False)
"""


@contextmanager
def serving(api: str, home: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", SERVES], env=environment(api, home))
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


async def test_under_serve(api, home, config, marks):
    mark = marks["sleeps"]
    with serving(api, home):
        flow_run_id = await start_served(plan_of("sleeps", mark))

        async def is_ready() -> bool:
            return count_ready(home / "logs") == 1

        await until(is_ready, 60)
        await cancel_in_the_ui(flow_run_id)

        async def nothing_left() -> bool:
            return processes(mark) == []

        await until(nothing_left, 20)
        await check_cancelled(flow_run_id, config)


async def start_served(plan) -> uuid.UUID:
    async with get_client() as client:

        async def is_served() -> bool:
            try:
                await client.read_deployment_by_name("run-plan/served")
            except ObjectNotFound:
                return False
            return True

        await until(is_served, 60)
        deployment = await client.read_deployment_by_name("run-plan/served")
        run = await client.create_flow_run_from_deployment(
            deployment.id, parameters={"plan": plan.model_dump(mode="json")}, state=Scheduled()
        )
    return run.id
