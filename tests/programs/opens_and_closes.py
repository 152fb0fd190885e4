"""Opens an engine as often as it is told, each time for a small plan; prints the plans' ids."""

import asyncio
import sys

from cloudops_prefect import (
    DependencyGraphStrategy,
    ExecutionEngine,
    ExecutionPlan,
    ExecutionRequest,
    ShellCommand,
)

COMMANDS = ["echo a", "echo b", "exit 3", "echo never", "echo c"]


async def main():
    commands = [ExecutionRequest(command=ShellCommand(command=one)) for one in COMMANDS]
    plan = ExecutionPlan(
        strategy=DependencyGraphStrategy(dependencies={1: [0], 3: [2]}), commands=commands
    )
    for _ in range(int(sys.argv[1])):
        async with ExecutionEngine() as engine:
            execution_id = await engine.execute_plan(plan)
            await engine.wait(execution_id)
        print(execution_id, flush=True)


asyncio.run(main())
