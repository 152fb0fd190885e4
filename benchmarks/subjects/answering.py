"""The side of a subject: answers in JSON what it is asked."""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


async def answer(**methods: Callable[..., Awaitable[Any]]) -> None:
    """Answers until stdin ends."""
    # What prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    while line := await asyncio.to_thread(sys.stdin.readline):
        method, arguments = json.loads(line)
        given = await methods[method](**arguments)
        print(json.dumps(given), file=answers, flush=True)


async def timed(work: Awaitable[Any]) -> dict[str, float]:
    """Awaits `work`; tells how long that took and the most memory that this process ever had."""
    started = time.perf_counter()
    await work
    return {"seconds": time.perf_counter() - started, "peak": peak()}


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss, which on Linux begins with that of the process that started this one.
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
