"""What each part of the benchmark gets: the server, a directory, how often to measure, subjects."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.server import Server

ROOT = Path(__file__).parent.parent
ANSWER_SECONDS = 300
BEGAN = time.monotonic()


def say(text: str) -> None:
    """Tells who waits for the benchmark what it does, and for how long it has done so."""
    print(f"{time.monotonic() - BEGAN:5.0f} s  {text}", file=sys.stderr, flush=True)


class Subject:
    """A process that measures one way of running commands, asked by lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, method: str, **arguments: Any) -> Any:
        self.tell(method, **arguments)
        return self.answer()

    def tell(self, method: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        # An answer is one line, and nothing of it is read before it is asked for.
        told, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        line = self._process.stdout.readline() if told else ""
        if not line:
            raise RuntimeError(f"{self._process.args} has given no answer")
        return json.loads(line)

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float) -> None:
        self._process.wait(seconds)


@dataclass
class Bench:
    """What all parts share.

    Attributes:
        repeats: How often a workload is measured.
        runs: How often each kind of command is stopped in each way.
        quick: Whether small workloads will do.
    """

    server: Server
    scratch: Path
    repeats: int
    runs: int
    quick: bool

    def environment(self) -> dict[str, str]:
        """What is started with it knows the server and this tree, and Prefect's defaults."""
        dropped = ("PREFECT_", "CLOUDOPS_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        return inherited | {
            "PREFECT_API_URL": self.server.url,
            "PREFECT_HOME": str(self.scratch / "home"),
            "CLOUDOPS_LOG_DIR": str(self.scratch / "logs"),
            "PYTHONPATH": str(ROOT),
        }

    @contextmanager
    def subject(self, name: str, **env: str) -> Iterator[Subject]:
        """Starts a module of `benchmarks.subjects`; its end is asked for, then forced."""
        with (self.scratch / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.subjects.{name}"],
                cwd=ROOT,
                env=self.environment() | env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            yield Subject(process)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    # What a peer has still queued for the API may take it half an hour.
    with suppress(OSError):
        process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            assert pipe is not None
            pipe.close()
    process.wait(10)
