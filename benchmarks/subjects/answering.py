"""The side of a subject: answers in JSON what it is asked."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from memory import peak


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
