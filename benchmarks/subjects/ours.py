"""This package: an engine that is open, as in a program that uses it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from memory import peak

from benchmarks.subjects.answering import answer, timed
from benchmarks.workloads import Workload, shell_command
from cloudops_prefect import (
    DependencyGraphStrategy,
    ExecutionConfig,
    ExecutionEngine,
    ExecutionPlan,
    ExecutionRequest,
    ParallelStrategy,
    SerialStrategy,
    ShellCommand,
    compile_plan,
)


def shell(command: str) -> ExecutionRequest:
    return ExecutionRequest(command=ShellCommand(command=command), timeout_ms=600_000)


def plan_of(work: Workload) -> ExecutionPlan:
    strategies = {
        "serial": SerialStrategy,
        "parallel": lambda: ParallelStrategy(max_concurrency=work.concurrency),
        "graph": lambda: DependencyGraphStrategy(dependencies=work.dependencies()),
    }
    return ExecutionPlan(
        strategy=strategies[work.kind](),
        commands=[shell(shell_command(index)) for index in range(work.count)],
    )


async def run(work) -> dict[str, Any]:
    plan = plan_of(Workload(**work))
    async with ExecutionEngine() as engine:
        await engine.list_executions(limit=1)

        async def to_its_end() -> None:
            result = await engine.wait(await engine.execute_plan(plan))
            assert result.status == "completed", result

        return await timed(to_its_end())


async def compile_plans(count) -> dict[str, Any]:
    plan = plan_of(Workload("graph", count, edges=3))

    async def both() -> None:
        plan.validate(ExecutionConfig())
        compile_plan(plan)

    return await timed(both())


async def starts(calls, at_once, seconds) -> dict[str, list[float]]:
    """How long each call of execute() took, and how long until the process had started.

    Ends early once `seconds` have gone by.
    """
    returned, started = [], []
    async with ExecutionEngine(ExecutionConfig(max_concurrent_executions=at_once)) as engine:

        async def call() -> None:
            asked = time.time()
            execution_id = await engine.execute(shell("echo $EPOCHREALTIME"))
            returned.append(time.time() - asked)
            result = await engine.wait(execution_id)
            started.append(float(result.stdout) - asked)

        await call()
        deadline = time.monotonic() + seconds
        for _ in range(calls // at_once):
            if time.monotonic() > deadline:
                break
            await asyncio.gather(*(call() for _ in range(at_once)))
    return {"returned": returned[1:], "started": started[1:]}


async def reads(calls, new) -> dict[str, Any]:
    """How long a question takes, and how many requests; with `new`, of something that has run."""
    async with ExecutionEngine() as engine:
        execution_id = await engine.execute(shell("true"))
        await engine.wait(execution_id)
        if new:
            return {"id": str(execution_id)}
        return {
            "get_status": await _questions(calls, lambda: engine.get_status(execution_id)),
            "list_executions": await _questions(calls, engine.list_executions),
        }


async def _questions(calls: int, ask: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    await ask()
    seconds, requests = [], []
    for _ in range(calls):
        before = len(_sent)
        seconds.append((await timed(ask()))["seconds"])
        requests.append(len(_sent) - before)
    return {"seconds": seconds, "requests": min(requests)}


_sent: list[str] = []


def _count_requests() -> None:
    send = httpx.AsyncClient.send

    async def counted(self, request, **kwargs) -> httpx.Response:
        _sent.append(request.url.path)
        return await send(self, request, **kwargs)

    httpx.AsyncClient.send = counted


class Counting:
    """A handler that counts lines."""

    def __init__(self) -> None:
        self.lines = 0
        self.ended = asyncio.Event()

    async def on_event(self, event) -> None:
        if event.event_type == "stdout":
            self.lines += 1
        elif event.event_type != "started":
            self.ended.set()


async def output(command, *, handler, api) -> dict[str, Any]:
    counting = Counting()
    async with ExecutionEngine(ExecutionConfig(stream_output=api)) as engine:
        await engine.wait(await engine.execute(shell("true")))
        told = engine.with_event_handler(counting) if handler else engine
        started = time.perf_counter()
        execution_id = await told.execute(shell(command))
        result = await engine.wait(execution_id)
        if handler:
            await counting.ended.wait()
        taken = time.perf_counter() - started
        assert result.exit_code == 0, result.error
        path = str(engine.get_log_path(execution_id))
        lines = counting.lines if handler else None
        return {"seconds": taken, "peak": peak(), "path": path, "lines": lines}


if __name__ == "__main__":
    _count_requests()
    methods = {"compile": compile_plans, "starts": starts, "reads": reads, "output": output}
    asyncio.run(answer(run=run, **methods))
