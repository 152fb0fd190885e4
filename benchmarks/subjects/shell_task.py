"""prefect-shell's task."""

import asyncio

from memory import peak
from prefect import flow
from prefect_shell import shell_run_command

from benchmarks.subjects.answering import answer
from benchmarks.subjects.lines import digest
from benchmarks.subjects.tasks import runner_of


@flow
async def print_much(command: str) -> str:
    return await digest(shell_run_command(command, return_all=True))


async def output(command, **_) -> dict[str, object]:
    return {**await print_much(command), "peak": peak()}


asyncio.run(answer(run=runner_of(shell_run_command), output=output))
