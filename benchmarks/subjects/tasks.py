"""A flow that runs a workload with a task for each command."""

from collections.abc import Awaitable, Callable
from typing import Any

from prefect import flow

from benchmarks.subjects.answering import timed
from benchmarks.workloads import Workload, perform, shell_command


def runner_of(run_command: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Returns what a subject answers with when it is asked to run a workload."""

    @flow
    async def run_commands(work: dict) -> None:
        async def run_one(index, upstream):
            return await run_command(shell_command(index), wait_for=upstream, return_state=True)

        await perform(Workload(**work), run_one)

    async def run(work) -> dict[str, float]:
        return await timed(run_commands(work))

    return run
