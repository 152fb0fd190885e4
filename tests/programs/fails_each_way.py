"""Runs a command that fails in each way there is, and prints how often each was run.

It is told a directory, and whether Prefect is to retry tasks by a setting of this program's own.
"""

import asyncio
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from prefect import flow
from prefect.settings import PREFECT_TASKS_DEFAULT_RETRIES, temporary_settings

directory, by_setting = Path(sys.argv[1]), sys.argv[2] == "settings"
settings = ExitStack()
if by_setting:
    # Tasks read it when they are made, which for some is the import.
    settings.enter_context(temporary_settings({PREFECT_TASKS_DEFAULT_RETRIES: 3}))

from cloudops_prefect import (  # noqa: E402
    ExecutionEngine,
    ExecutionError,
    ExecutionPlan,
    ExecutionRequest,
    ShellCommand,
    compile_plan,
    run_command,
    run_shell,
)


def failing(counter):
    return ExecutionRequest(command=ShellCommand(command=f"echo x >> {counter}; exit 3"))


async def called_plan(counter):
    await compile_plan(ExecutionPlan(commands=[failing(counter)]))()


async def called_command(counter):
    await run_command(failing(counter))


async def executed_plan(counter):
    async with ExecutionEngine() as engine:
        plan = ExecutionPlan(commands=[failing(counter)])
        await engine.wait(await engine.execute_plan(plan))


async def executed_command(counter):
    async with ExecutionEngine() as engine:
        await engine.wait(await engine.execute(failing(counter)))


@flow
async def task_in_a_flow(counter):
    await run_shell(failing(counter))


@flow
async def task_with_options(counter):
    await run_shell.with_options(name="mine")(failing(counter))


async def main():
    for way in (
        called_plan,
        called_command,
        executed_plan,
        executed_command,
        task_in_a_flow,
        task_with_options,
    ):
        counter = directory / "counter"
        # A flow raises how its run ended, an engine does not.
        with suppress(ExecutionError):
            await way(counter)
        print(counter.read_text().count("x"))
        counter.unlink()


asyncio.run(main())
