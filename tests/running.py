"""Commands as the tests run them: what they print is recorded, and what they leave is found."""

import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import psutil

from cloudops_prefect.process import ProcessOutcome, StopRequest, run_process

PROJECT = Path(__file__).parent.parent
PROGRAMS = Path(__file__).parent / "programs"
MARK = "CLOUDOPS_TEST_MARK"
SEES_NO_STRANGERS = ["setpriv", "--bounding-set=-sys_resource,-sys_ptrace"]
"""Has root, as in a container, read neither limits nor environment of other users' processes."""


def program(name: str, *args: str) -> list[str]:
    """The command line of a test program."""
    return [sys.executable, "-ES", str(PROGRAMS / f"{name}.py"), *args]


class Running:
    """A command that a test runs. Its processes carry `mark`, in the environment or an argument."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.stop = StopRequest()
        self.pid: int | None = None
        self.output = {"stdout": bytearray(), "stderr": bytearray()}
        self.outcome: ProcessOutcome | None = None
        self._changed = anyio.Event()

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, MARK: self.mark, "PYTHONPATH": str(PROJECT)}

    @property
    def stdout(self) -> bytes:
        return bytes(self.output["stdout"])

    async def run(
        self, argv, *, timeout=None, grace_period=0.5, cwd=None, keep_background=False
    ) -> ProcessOutcome:
        self.outcome = await run_process(
            argv,
            env=self.env,
            cwd=cwd,
            on_output=self._on_output,
            stop=self.stop,
            timeout=timeout,
            grace_period=grace_period,
            on_started=self._on_started,
            keep_background=keep_background,
        )
        return self.outcome

    async def has_printed(self, text: bytes) -> None:
        with anyio.fail_after(20):
            while text not in self.output["stdout"]:
                self._changed = anyio.Event()
                await self._changed.wait()

    def _on_output(self, stream, chunk) -> None:
        kept = self.output[stream]
        kept += chunk
        # A flood is counted by nobody, and its end is all that is looked at.
        if len(kept) > 50_000_000:
            del kept[:-1_000_000]
        self._changed.set()

    def _on_started(self, pid: int) -> None:
        self.pid = pid


def processes(mark: str) -> list[psutil.Process]:
    """Every living process that has the mark in its environment or an argument of its own."""
    return [process for process in psutil.process_iter() if _has(process, mark)]


def _has(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error):
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get(MARK) == mark or mark in process.cmdline()
    return False


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    with path.open() as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    return True


def guards_of(pid: int) -> list[psutil.Process]:
    """The guards of the process `pid` that are alive."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            argv = process.cmdline()
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and argv[-1:] == [str(pid)] and "guard_process.py" in "".join(argv[-3:-2]):
                found.append(process)
    return found


async def soon(condition, seconds: float = 10) -> None:
    """Wait until the condition holds."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.05)
