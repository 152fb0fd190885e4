"""Runs a plan in two engines, with a Prefect that has none of the names that are not public."""

import asyncio

from cloudops_prefect import (
    ExecutionEngine,
    ExecutionPlan,
    ExecutionRequest,
    ShellCommand,
    prefect_internals,
)

prefect_internals.hasattr = lambda *_: False
prefect_internals.getattr = lambda _, __, default: default
PLAN = ExecutionPlan(commands=[ExecutionRequest(command=ShellCommand(command="echo one"))])


async def main():
    for _ in range(2):
        async with ExecutionEngine() as engine:
            result = await engine.wait(await engine.execute_plan(PLAN))
        print(f"{result.status}: {result.results[0].stdout}", end="")


asyncio.run(main())
