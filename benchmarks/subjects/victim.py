"""A process that runs plans with an engine until it is stopped; it has imported all beforehand."""

import asyncio
import sys

from cloudops_prefect import ExecutionEngine, ExecutionPlan


async def main() -> None:
    engine = ExecutionEngine()
    print("[]", flush=True)
    plans = [ExecutionPlan.model_validate(one) for one in await asyncio.to_thread(_plans)]
    ids = [await engine.execute_plan(plan) for plan in plans]
    await asyncio.gather(*map(engine.wait, ids))


def _plans() -> list[dict]:
    import json

    return json.loads(sys.stdin.readline())[1]["plans"]


asyncio.run(main())
