"""No Prefect: a subprocess of asyncio's for each command, or xargs."""

import asyncio
import time
from pathlib import Path

from benchmarks.subjects.answering import answer, timed
from benchmarks.workloads import Workload, perform, shell_command

CHUNK = 65_536


async def run_one(index, _upstream) -> None:
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", shell_command(index), stdout=asyncio.subprocess.PIPE
    )
    await process.communicate()


async def run(work) -> dict[str, float]:
    return await timed(perform(Workload(**work), run_one))


async def xargs(work) -> dict[str, float]:
    wanted = Workload(**work)
    numbers = "\n".join(map(str, range(wanted.count))).encode()
    at_once = "1" if wanted.kind == "serial" else str(wanted.concurrency)

    async def feed() -> None:
        process = await asyncio.create_subprocess_exec(
            *["xargs", "-P", at_once, "-I", "{}", "bash", "-c", "echo {}"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await process.communicate(numbers)

    return await timed(feed())


async def output(command, path, *, handler) -> dict[str, float]:
    return await timed(_to_file(command, Path(path), handler=handler))


async def _to_file(command, path, *, handler) -> None:
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    with path.open("wb") as file:
        if handler:
            async for line in process.stdout:
                file.write(line)
                await _on_line(line.decode(errors="replace"), time.time())
        else:
            while chunk := await process.stdout.read(CHUNK):
                file.write(chunk)
    await process.wait()


async def _on_line(_line, _timestamp) -> None:
    """Does nothing with a line."""


asyncio.run(answer(run=run, xargs=xargs, output=output))
