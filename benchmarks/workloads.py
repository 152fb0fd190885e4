"""Commands in some order, and how those who know no plans run them in it."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import anyio


@dataclass(frozen=True)
class Workload:
    """`count` commands that print their number.

    Attributes:
        kind: `serial`, `parallel` or `graph`.
        concurrency: How many run at once.
        edges: How many others each command of a graph waits for.
    """

    kind: str
    count: int
    concurrency: int = 10
    edges: int = 0

    def dependencies(self) -> dict[int, list[int]]:
        """What each command of a graph waits for: some of the thirty before it."""
        chosen = random.Random(self.count)
        return {
            index: sorted(chosen.sample(range(max(0, index - 30), index), min(self.edges, index)))
            for index in range(1, self.count)
        }

    def json(self) -> dict[str, Any]:
        return asdict(self)


def shell_command(index: int) -> str:
    """What each subject lets bash run: not the same twice, or Prefect would run it once."""
    return f"echo {index}"


async def perform(work: Workload, run: Callable[[int, list[Any]], Awaitable[Any]]) -> None:
    """Calls `run` with each command's index and what `run` gave for those it waits for."""
    if work.kind == "serial":
        for index in range(work.count):
            await run(index, [])
        return
    dependencies = work.dependencies() if work.kind == "graph" else {}
    ended = [anyio.Event() for _ in range(work.count)]
    results: dict[int, Any] = {}
    limit = anyio.CapacityLimiter(work.concurrency)

    async def node(index: int) -> None:
        upstream = dependencies.get(index, [])
        for other in upstream:
            await ended[other].wait()
        async with limit:
            results[index] = await run(index, [results[other] for other in upstream])
        ended[index].set()

    async with anyio.create_task_group() as tasks:
        for index in range(work.count):
            tasks.start_soon(node, index)
