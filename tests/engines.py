"""Requests and plans as the tests give them to an engine, and what they wait for."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import anyio

from cloudops_prefect import ExecCommand, ExecutionEvent, ExecutionRequest, ShellCommand

PROGRAMS = Path(__file__).parent / "programs"


def shell(command: str, **fields) -> ExecutionRequest:
    return ExecutionRequest(command=ShellCommand(command=command), **fields)


def exec_(program: str, *args: str, **fields) -> ExecutionRequest:
    return ExecutionRequest(command=ExecCommand(program=program, args=list(args)), **fields)


def gated(gate: Path, then: str = "true", **fields) -> ExecutionRequest:
    """Prints `ready`, and goes on once the file `gate` is there."""
    return shell(f"echo ready; until test -e {gate}; do sleep 0.02; done; {then}", **fields)


def overlapping(record: Path, **fields) -> ExecutionRequest:
    """Records where it begins and where it ends."""
    return shell(f"echo + >> {record}; sleep 0.2; echo - >> {record}", **fields)


def most_at_once(record: Path) -> int:
    """How many of the `overlapping` commands ran at once."""
    running = most = 0
    for line in record.read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    return most


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 20) -> None:
    """Waits until the condition holds."""
    with anyio.fail_after(seconds):
        while not await condition():
            await anyio.sleep(0.05)


async def flat(groups: AsyncGenerator[Iterable[ExecutionEvent], None]):
    """Yields events that come in groups one by one."""
    async with aclosing(groups):
        async for events in groups:
            for event in events:
                yield event


class SecondEngine:
    """An engine in another process, which is asked by lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, method: str, *arguments):
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, *map(str, arguments)]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def second_engine(api: str, log_dir: Path) -> Iterator[SecondEngine]:
    env = os.environ | {"PREFECT_API_URL": api, "CLOUDOPS_LOG_DIR": str(log_dir)}
    argv = [sys.executable, str(PROGRAMS / "answers.py")]
    with subprocess.Popen(
        argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield SecondEngine(process)
        finally:
            process.kill()
