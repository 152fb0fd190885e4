"""The least that a Prefect flow of commands can be: a task that awaits a subprocess."""

import asyncio
import time

from prefect import flow, task

from benchmarks.subjects.answering import answer
from benchmarks.subjects.tasks import runner_of


@task
async def run_command(command):
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdout=asyncio.subprocess.PIPE
    )
    stdout, _ = await process.communicate()
    return stdout.decode()


@flow
async def run_single(command: str) -> str:
    return await run_command(command)


async def starts(calls, at_once) -> list[float]:
    latencies = []

    async def call() -> None:
        asked = time.time()
        latencies.append(float(await run_single("echo $EPOCHREALTIME")) - asked)

    await call()
    for _ in range(calls // at_once):
        await asyncio.gather(*(call() for _ in range(at_once)))
    return latencies[1:]


if __name__ == "__main__":
    asyncio.run(answer(run=runner_of(run_command), starts=starts))
