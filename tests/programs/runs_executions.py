"""Runs plans with two engines: each argument is a plan in JSON. Says the ids once they started."""

import asyncio
import sys
from itertools import cycle

from cloudops_prefect import ExecutionEngine, ExecutionPlan


async def main():
    plans = [ExecutionPlan.model_validate_json(argument) for argument in sys.argv[1:]]
    taken = [*zip(cycle([ExecutionEngine(), ExecutionEngine()]), plans)]
    ids = [await engine.execute_plan(plan) for engine, plan in taken]
    print(*ids, flush=True)
    waiting = [engine.wait(id_) for (engine, _), id_ in zip(taken, ids, strict=True)]
    await asyncio.gather(*waiting)


asyncio.run(main())
