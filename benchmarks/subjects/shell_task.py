"""prefect-shell's task."""

import asyncio

from prefect import flow
from prefect_shell import shell_run_command

from benchmarks.subjects.answering import answer, peak, timed
from benchmarks.subjects.lines import digest
from benchmarks.workloads import Workload, perform, shell_command


@flow
async def run_commands(work: dict) -> None:
    async def run_one(index, upstream):
        return await shell_run_command(shell_command(index), wait_for=upstream, return_state=True)

    await perform(Workload(**work), run_one)


@flow
async def print_much(command: str) -> str:
    return await digest(shell_run_command(command, return_all=True))


async def run(work) -> dict[str, float]:
    return await timed(run_commands(work))


async def output(command, **_) -> dict[str, object]:
    return {**await print_much(command), "peak": peak()}


asyncio.run(answer(run=run, output=output))
