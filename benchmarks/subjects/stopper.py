"""Plans that are stopped: an engine's by a timeout, by itself or at the API, a worker's there."""

import asyncio
import time
import uuid
from functools import partial

from prefect.client.orchestration import get_client
from prefect.states import Cancelling, Scheduled
from stopped import ARGV, count_ready, plan_of

from benchmarks.subjects.answering import answer
from benchmarks.trees import Trees
from cloudops_prefect import ExecutionConfig, ExecutionEngine, ExecutionPlan, ParallelStrategy
from cloudops_prefect.deployments import deploy_plan

LOG_DIR = ExecutionConfig().resolved_log_dir
READY_SECONDS = 30
WORKER_SECONDS = 120
ENDING_SECONDS = 60
TIMEOUT_MS = {"fifty in parallel": 3000}
DEFAULT_TIMEOUT_MS = 600


async def stop(engine, client, kind, way, seconds) -> dict[str, float]:
    """How long until the last process was gone, and how many were not."""
    mark = uuid.uuid4().hex
    timeout_ms = TIMEOUT_MS.get(kind, DEFAULT_TIMEOUT_MS) if way == "timeout" else None
    plan = plan_of(kind, mark, timeout_ms=timeout_ms)
    execution_id = await engine.execute_plan(plan)
    await _ready(len(plan.commands), READY_SECONDS)
    trees = Trees({kind: mark})
    asked = time.time()
    if way == "engine.cancel":
        await engine.cancel(execution_id)
    elif way == "UI cancel, local":
        await _cancel_in_the_ui(client, execution_id)
    told = (await asyncio.to_thread(trees.told, asked, seconds))[kind]
    result = await engine.wait(execution_id)
    for one in result.results:
        one.log_path.unlink()
    if timeout_ms is not None:
        due = max(one.started_at.timestamp() for one in result.results) + timeout_ms / 1000
        told["seconds"] -= due - asked
    return told


async def stop_under_worker(client, pool, seconds) -> dict[str, dict[str, float]]:
    """The same of all kinds, in one run that a worker runs."""
    marks = {kind: uuid.uuid4().hex for kind in ARGV}
    commands = [one for kind, mark in marks.items() for one in plan_of(kind, mark).commands]
    plan = ExecutionPlan(strategy=ParallelStrategy(), commands=commands)
    deployment_id = await deploy_plan(plan, name="stopped", work_pool=pool)
    run = await client.create_flow_run_from_deployment(deployment_id, state=Scheduled())
    await _ready(len(commands), WORKER_SECONDS)
    trees = Trees(marks)
    asked = time.time()
    await _cancel_in_the_ui(client, run.id)
    told = await asyncio.to_thread(trees.told, asked, seconds)
    await _until_cancelled(client, run.id)
    for path in LOG_DIR.glob("*.log"):
        path.unlink()
    return told


async def _cancel_in_the_ui(client, flow_run_id) -> None:
    await client.set_flow_run_state(flow_run_id, Cancelling(), force=True)


async def _ready(count, seconds) -> None:
    deadline = time.monotonic() + seconds
    while count_ready(LOG_DIR) < count:
        assert time.monotonic() < deadline, "the commands are not ready in time"
        await asyncio.sleep(0.01)


async def _until_cancelled(client, flow_run_id) -> None:
    deadline = time.monotonic() + ENDING_SECONDS
    while not (state := (await client.read_flow_run(flow_run_id)).state).is_final():
        assert time.monotonic() < deadline, f"a cancelled run is still {state.name}"
        await asyncio.sleep(0.1)
    assert state.is_cancelled(), state


async def main() -> None:
    async with ExecutionEngine() as engine, get_client() as client:
        methods = {
            "stop": partial(stop, engine, client),
            "stop_under_worker": partial(stop_under_worker, client),
        }
        await answer(**methods)


asyncio.run(main())
