"""Runs whose worker died before it began them: which go back to the pool, and none runs twice."""

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import anyio
import pytest
from engines import shell, until
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import WorkerStatus
from prefect.states import Crashed, Pending, Scheduled
from workers import create_pool, deploy, deployments, environment

from cloudops_prefect import ExecutionEngine, ExecutionPlan, ExecutionStatus
from cloudops_prefect.stranded import GIVEN_BACK, WORKER_LABEL, give_back

pytestmark = [pytest.mark.anyio, pytest.mark.server]
POOL = "given-back"


@pytest.fixture
async def engine(api, config):
    create_pool(api, POOL)
    await deploy(POOL)
    async with ExecutionEngine(config, deployments=deployments(POOL)) as engine:
        yield engine


@pytest.fixture
async def client(api):
    async with get_client() as client:
        yield client


async def take(client, execution_id, worker: str | None, pid: str | None = None) -> None:
    """Does with a run what a worker does before it begins it."""
    await client.set_flow_run_state(execution_id, Pending())
    if worker is not None:
        await client.update_flow_run_labels(execution_id, {WORKER_LABEL: worker})
    if pid is not None:
        await client.update_flow_run(execution_id, infrastructure_pid=pid)


def begun(api: str, home: Path, execution_id: UUID) -> subprocess.Popen[bytes]:
    """Begins a run as a worker's process does."""
    env = environment(api, home) | {"PREFECT__FLOW_RUN_ID": str(execution_id)}
    return subprocess.Popen([sys.executable, "-m", "prefect.engine"], env=env)


async def test_only_what_a_dead_worker_has_taken_and_not_started_goes_back(engine, client):
    for worker in ("dead", "alive"):
        await client.send_worker_heartbeat(POOL, worker, heartbeat_interval_seconds=60)
    taken = {
        ("dead", None): await engine.execute(shell("true")),
        ("dead", "17"): await engine.execute(shell("true")),
        ("alive", None): await engine.execute(shell("true")),
        (None, None): await engine.execute(shell("true")),
    }
    before = {
        execution_id: await client.read_flow_run(execution_id) for execution_id in taken.values()
    }
    for (worker, pid), execution_id in taken.items():
        await take(client, execution_id, worker, pid)

    async def is_offline() -> bool:
        workers = await client.read_workers_for_work_pool(POOL)
        return any(one.status is WorkerStatus.OFFLINE for one in workers)

    await give_back(client, POOL)
    states = [(await client.read_flow_run(one)).state for one in taken.values()]
    assert all(state.is_pending() for state in states)
    # Its last sign of life, of which the API calls it offline three seconds later.
    await client.send_worker_heartbeat(POOL, "dead", heartbeat_interval_seconds=1)
    await until(is_offline)
    await give_back(client, POOL)
    for owner, execution_id in taken.items():
        run = await client.read_flow_run(execution_id)
        assert run.state.is_scheduled() == (owner == ("dead", None))
        if run.state.is_scheduled():
            was_due = before[execution_id].state.state_details.scheduled_time
            assert run.state.state_details.scheduled_time == was_due
        await engine.cancel(execution_id)


async def test_of_two_processes_only_the_first_runs_what_was_given_back(
    engine, client, api, tmp_path
):
    counter, gate = tmp_path / "counter", tmp_path / "gate"
    waits = f"echo ready >> {counter}; until test -e {gate}; do sleep 0.02; done"
    execution_id = await engine.execute(shell(waits))

    def begin(machine: str) -> subprocess.Popen[bytes]:
        process = begun(api, tmp_path / machine, execution_id)
        processes.callback(process.wait, 10)
        processes.callback(process.kill)
        return process

    async def state():
        return (await client.read_flow_run(execution_id)).state

    async def is_begun() -> bool:
        return counter.exists()

    with ExitStack() as processes:
        await take(client, execution_id, "first")
        first = begin("first")
        await until(is_begun, 240)
        # Somebody saw it Pending just before it began.
        await client.set_flow_run_state(execution_id, Scheduled(message=GIVEN_BACK))
        await take(client, execution_id, "second")
        assert await anyio.to_thread.run_sync(begin("second").wait, 240) == 0
        assert (await state()).is_running()
        third = begin("third")
        assert await anyio.to_thread.run_sync(third.wait, 240) == 0
        assert (await state()).is_running()
        gate.touch()
        assert await anyio.to_thread.run_sync(first.wait, 240) == 0
        assert (await state()).is_completed()
        assert await anyio.to_thread.run_sync(begin("fourth").wait, 240) == 0
    assert (await state()).is_completed()
    assert (await engine.get_result(execution_id)).status is ExecutionStatus.COMPLETED
    assert counter.read_text() == "ready\n"


async def test_a_retry_does_not_run_what_completed_just_before_its_process_was_killed(
    engine, client, api, tmp_path
):
    """Nobody has looked in between, and the API had no word of it."""
    ran = tmp_path / "ran"
    kills_once = f"test -e {tmp_path}/again || {{ touch {tmp_path}/again; kill -9 $PPID; }}"
    plan = ExecutionPlan(commands=[shell(f"echo ran >> {ran}"), shell(kills_once)])
    execution_id = await engine.execute_plan(plan)
    first = begun(api, tmp_path, execution_id)
    assert await anyio.to_thread.run_sync(first.wait, 240) == -signal.SIGKILL
    for state in (Crashed(), Scheduled(), Pending()):
        await client.set_flow_run_state(execution_id, state, force=True)
    second = begun(api, tmp_path, execution_id)
    assert await anyio.to_thread.run_sync(second.wait, 240) == 0
    assert (await engine.get_status(execution_id)) is ExecutionStatus.COMPLETED
    assert ran.read_text() == "ran\n"
