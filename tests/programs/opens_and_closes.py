"""Opens an engine as often as it is told, each time for a plan of so many commands."""

import asyncio
import sys

from cloudops_prefect import (
    ExecutionEngine,
    ExecutionPlan,
    ExecutionRequest,
    ParallelStrategy,
    ShellCommand,
)


async def main(times, count):
    commands = [ExecutionRequest(command=ShellCommand(command="true"))] * count
    plan = ExecutionPlan(strategy=ParallelStrategy(), commands=commands)
    for _ in range(times):
        async with ExecutionEngine() as engine:
            await engine.wait(await engine.execute_plan(plan))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
