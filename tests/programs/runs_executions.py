"""Runs plans with an engine: each argument is a plan's JSON. Says the ids once all have started."""

import asyncio
import sys

from cloudops_prefect import ExecutionEngine, ExecutionPlan


async def main():
    engine = ExecutionEngine()
    plans = [ExecutionPlan.model_validate_json(argument) for argument in sys.argv[1:]]
    ids = [await engine.execute_plan(plan) for plan in plans]
    print(*ids, flush=True)
    await asyncio.gather(*map(engine.wait, ids))


asyncio.run(main())
