"""Nothing is left of what is cancelled in the UI, under a worker and under `flow.serve`."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import anyio
import psutil
import pytest
from engines import shell, until
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Pending, Scheduled
from running import MARK, processes, soon
from stopped import ARGV, count_ready, plan_of
from workers import create_pool, environment, prefect, process_worker

from cloudops_prefect import ExecutionEngine, ExecutionPlan, ExecutionStatus, ParallelStrategy
from cloudops_prefect.deployments import deploy_plan

pytestmark = [pytest.mark.anyio, pytest.mark.server]
POOL = "stopping"
NOBODYS_POOL = "stopping-nobody"


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def marks():
    return {kind: uuid.uuid4().hex for kind in ARGV}


@pytest.fixture(scope="module")
def worker(prefect_api, tmp_path_factory):
    """A worker on the pool; its home."""
    home = tmp_path_factory.mktemp("stopping-worker")
    create_pool(prefect_api, POOL)
    with process_worker(prefect_api, home, POOL, CLOUDOPS_MAX_CONCURRENT_EXECUTIONS="100"):
        yield home


async def start(deployment_id, state=None) -> uuid.UUID:
    async with get_client() as client:
        run = await client.create_flow_run_from_deployment(
            deployment_id, state=state or Scheduled()
        )
    return run.id


async def cancel_in_the_ui(flow_run_id) -> None:
    async with get_client() as client:
        await client.set_flow_run_state(flow_run_id, Cancelling(), force=True)


async def has_ended(flow_run_id) -> bool:
    async with get_client() as client:
        state = (await client.read_flow_run(flow_run_id)).state
    return state is not None and state.is_final()


async def check_cancelled(flow_run_id, config, kinds: list[str]) -> None:
    """The run, its task runs and its results all say cancelled, and what was printed is there."""
    await until(lambda: has_ended(flow_run_id), 60)
    async with ExecutionEngine(config) as engine:
        result = await engine.get_plan_result(flow_run_id)
    assert result.status is ExecutionStatus.CANCELLED
    told = [
        (kind, one.status, bool(one.stdout))
        for kind, one in zip(kinds, result.results, strict=True)
    ]
    assert told == [(kind, ExecutionStatus.CANCELLED, True) for kind in kinds]

    async def other_names() -> set[str]:
        async with get_client() as client:
            wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
            task_runs = await client.read_task_runs(task_run_filter=wanted)
        return {str(run.state_name) for run in task_runs} - {"Cancelled"}

    # Task runs travel as events, and arrive some time after their process has ended.
    await until_none(other_names, 20)


async def until_none(look: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Waits until there is nothing to be found any more; fails with what is."""
    with anyio.move_on_after(seconds):
        while await look():
            await anyio.sleep(0.05)
    assert not await look()


async def test_under_a_worker(api, worker, config, marks):
    commands = {kind: plan_of(kind, mark).commands for kind, mark in marks.items()}
    kinds = [kind for kind, some in commands.items() for _ in some]
    plan = ExecutionPlan(strategy=ParallelStrategy(), commands=[*chain(*commands.values())])
    flow_run_id = await start(await deploy_plan(plan, name="of every kind", work_pool=POOL))

    async def all_ready() -> bool:
        return count_ready(worker / "logs") == len(kinds)

    await until(all_ready, 90)
    await cancel_in_the_ui(flow_run_id)

    async def left() -> set[str]:
        return {kind for kind, mark in marks.items() if processes(mark)}

    await until_none(left, 20)
    await check_cancelled(flow_run_id, config, kinds)


async def test_sigterm_to_the_flows_process_is_a_cancellation(api, worker, config, marks):
    mark = marks["sleeps"]
    before = count_ready(worker / "logs")
    plan = plan_of("sleeps", mark)
    flow_run_id = await start(await deploy_plan(plan, name="terminated", work_pool=POOL))

    async def is_ready() -> bool:
        return count_ready(worker / "logs") > before

    await until(is_ready, 240)
    async with get_client() as client:
        pid = (await client.read_flow_run(flow_run_id)).infrastructure_pid
    os.kill(int(str(pid).rpartition(":")[2]), signal.SIGTERM)
    await check_cancelled(flow_run_id, config, ["sleeps"])
    assert processes(mark) == []


MOMENTS = {
    "before the worker has seen it": lambda _: True,
    "before it has a process": lambda run: not run.state.is_scheduled(),
    "while its process starts": lambda run: run.infrastructure_pid,
    "as it begins to run": lambda run: run.state.is_running(),
}
# The Pythons of all moments import Prefect at once, and share the cores with all that runs beside.
PATIENCE = 90


@pytest.mark.timeout(3 * PATIENCE)
async def test_what_is_cancelled_in_the_ui_while_a_worker_starts_it_never_runs(api, worker):
    told: dict[str, str] = {}
    mark = uuid.uuid4().hex

    async def cancel_at(moment: str, flow_run_id: uuid.UUID) -> None:
        async with get_client() as client:

            async def is_there() -> object:
                return MOMENTS[moment](await client.read_flow_run(flow_run_id))

            await until(is_there, PATIENCE)
            await cancel_in_the_ui(flow_run_id)
            await until(lambda: has_ended(flow_run_id), PATIENCE)
            pid = (await client.read_flow_run(flow_run_id)).infrastructure_pid
            if pid is not None:
                await soon(lambda: not psutil.pid_exists(int(pid.rpartition(":")[2])), PATIENCE)
            told[moment] = (await client.read_flow_run(flow_run_id)).state_name

    async with anyio.create_task_group() as tasks:
        for moment in MOMENTS:
            command = shell(f"touch '{worker}/ran {moment}'; sleep 60", env={MARK: mark})
            plan = ExecutionPlan(commands=[command])
            deployment_id = await deploy_plan(plan, name=moment, work_pool=POOL)
            tasks.start_soon(cancel_at, moment, await start(deployment_id))
    assert told == dict.fromkeys(MOMENTS, "Cancelled")
    assert processes(mark) == []
    # Only there may its first command have been quicker.
    assert {path.name for path in worker.glob("ran *")} <= {"ran as it begins to run"}


def run_for(flow_run_id, api: str, home: Path, *arguments: str) -> None:
    """Runs Python as a runner of Prefect does for a run."""
    subprocess.run(
        [sys.executable, *arguments],
        env=environment(api, home) | {"PREFECT__FLOW_RUN_ID": str(flow_run_id)},
        timeout=60,
    )


async def test_a_cancellation_that_no_runner_heard_of_ends_with_the_process(api, home):
    create_pool(api, NOBODYS_POOL)
    plan = ExecutionPlan(commands=[shell(f"touch {home / 'ran'}")])
    deployment_id = await deploy_plan(plan, name="unheard", work_pool=NOBODYS_POOL)
    flow_run_id = await start(deployment_id, Pending())
    # Who sees nothing happen clicks again.
    for _ in range(2):
        await cancel_in_the_ui(flow_run_id)
    run_for(flow_run_id, api, home, "-c", "import cloudops_prefect.flows")
    assert not await has_ended(flow_run_id)
    run_for(flow_run_id, api, home, "-m", "prefect.engine")
    async with get_client() as client:
        assert (await client.read_flow_run(flow_run_id)).state_name == "Cancelled"
    assert not (home / "ran").exists()


SERVES = """
from cloudops_prefect.flows import run_plan
run_plan.serve(name="served", pause_on_shutdown=False)
"""


@contextmanager
def serving(api: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", SERVES]
    # As in a terminal of its own: Ctrl-C reaches each process of the group.
    process = subprocess.Popen(argv, env=environment(api, home), start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("how", ["Prefect's command", "Ctrl-C"])
async def test_under_serve_what_was_done_is_kept(api, home, config, marks, how):
    mark = marks["sleeps"]
    sleeping = plan_of("sleeps", mark).commands
    plan = ExecutionPlan(commands=[shell("echo kept"), *sleeping, shell("echo never")])
    with serving(api, home) as process:
        flow_run_id = await start_served(plan)

        async def is_ready() -> bool:
            return count_ready(home / "logs") == 1

        await until(is_ready, 240)
        if how == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            prefect(api, home, "flow-run", "cancel", str(flow_run_id))
        await until(lambda: has_ended(flow_run_id), 60)
        assert processes(mark) == []
    # Whoever could say something else has ended.
    async with ExecutionEngine(config) as engine:
        result = await engine.get_plan_result(flow_run_id)
    assert result.status is ExecutionStatus.CANCELLED
    assert [one.status for one in result.results] == ["completed", "cancelled", "cancelled"]
    assert [one.stdout for one in result.results] == ["kept\n", "ready\n", ""]
    assert result.results[2].error == "not run: the plan was cancelled"


async def start_served(plan) -> uuid.UUID:
    async with get_client() as client:

        async def is_served() -> bool:
            try:
                await client.read_deployment_by_name("run-plan/served")
            except ObjectNotFound:
                return False
            return True

        await until(is_served, 240)
        deployment = await client.read_deployment_by_name("run-plan/served")
        run = await client.create_flow_run_from_deployment(
            deployment.id, parameters={"plan": plan.model_dump(mode="json")}, state=Scheduled()
        )
    return run.id
