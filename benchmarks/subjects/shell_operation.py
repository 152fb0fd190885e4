"""prefect-shell's block, which makes no task runs."""

import asyncio

from memory import peak
from prefect import flow
from prefect_shell import ShellOperation

from benchmarks.subjects.answering import answer, timed
from benchmarks.subjects.lines import digest
from benchmarks.workloads import Workload, perform, shell_command


@flow
async def run_commands(work: dict) -> None:
    async def run_one(index, _upstream):
        return await ShellOperation(commands=[shell_command(index)]).arun()

    await perform(Workload(**work), run_one)


@flow
async def print_much(command: str, *, stream: bool):
    return await digest(ShellOperation(commands=[command], stream_output=stream).arun())


async def run(work) -> dict[str, float]:
    return await timed(run_commands(work))


async def output(command, *, handler, **_) -> dict[str, object]:
    return {**await print_much(command, stream=handler), "peak": peak()}


asyncio.run(answer(run=run, output=output))
