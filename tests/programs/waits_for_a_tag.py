"""Runs a plan whose command has the given tag, and prints that it waits and how it ended."""

import asyncio
import logging
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


# Prefect configures logging when it is imported.
waits = logging.getLogger("cloudops_prefect.tag_limits")
waits.setLevel(logging.INFO)
waits.addHandler(logging.StreamHandler(sys.stdout))
asyncio.run(main())
