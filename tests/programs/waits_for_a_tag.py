"""Runs a plan whose command has the tag that this program is told, and prints how it ended."""

import asyncio
import sys

from prefect import tags

from cloudops_prefect import (
    ExecutionCancelledError,
    ExecutionPlan,
    ExecutionRequest,
    ShellCommand,
    compile_plan,
)

PLAN = ExecutionPlan(commands=[ExecutionRequest(command=ShellCommand(command="true"))])


async def main():
    with tags(sys.argv[1]):
        try:
            await compile_plan(PLAN)()
        except ExecutionCancelledError as error:
            print(error.result.results[0].error)


asyncio.run(main())
