"""An engine whose plans are stopped: by a timeout, by itself, or at the API."""

import asyncio
import time
import uuid
from functools import partial

from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from benchmarks.subjects.answering import answer
from benchmarks.trees import Trees, count_ready, plan_of
from cloudops_prefect import ExecutionEngine

READY_SECONDS = 30
TIMEOUT_MS = {"fifty in parallel": 4000}
DEFAULT_TIMEOUT_MS = 1000


async def stop(engine, kind, way, seconds) -> dict[str, float]:
    """How long until the last process was gone, and how many were not."""
    mark = uuid.uuid4().hex
    timeout_ms = TIMEOUT_MS.get(kind, DEFAULT_TIMEOUT_MS) if way == "timeout" else None
    plan = plan_of(kind, mark, timeout_ms=timeout_ms)
    execution_id = await engine.execute_plan(plan)
    await _ready(engine, len(plan.commands))
    trees = Trees({kind: mark})
    asked = time.time()
    await _ask(way, engine, execution_id)
    gone = await asyncio.to_thread(trees.until_gone, seconds)
    left = trees.survivors()
    result = await engine.wait(execution_id)
    for one in result.results:
        one.log_path.unlink()
    if timeout_ms is not None:
        asked = max(one.started_at.timestamp() for one in result.results) + timeout_ms / 1000
    return {"seconds": gone.get(kind, asked + seconds) - asked, "survivors": left}


async def _ready(engine, count) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while count_ready(engine.config.resolved_log_dir) < count:
        assert time.monotonic() < deadline, "the commands are not ready in time"
        await asyncio.sleep(0.01)


async def _ask(way, engine, execution_id) -> None:
    if way == "engine.cancel":
        await engine.cancel(execution_id)
    elif way == "UI cancel, local":
        async with get_client() as client:
            await client.set_flow_run_state(execution_id, Cancelling(), force=True)


async def main() -> None:
    async with ExecutionEngine() as engine:
        await answer(stop=partial(stop, engine))


asyncio.run(main())
