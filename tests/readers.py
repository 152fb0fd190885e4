"""Somebody who does what pages of documentation say, in a shell or a terminal as it says."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from uuid import uuid4

import psutil
from documents import Block, Step, is_shown, steps
from terminals import terminal
from workers import until

ELSEWHERE = {"needs", "not run"}
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SECONDS = 240
# A screen that shows a command asleep is there for as long as the reader looks for it.
SLEEP = """#!/bin/sh
{sleep} "$@"
while ls {looks}/* > /dev/null 2>&1; do {sleep} 0.05; done
"""
OF_A_READER = {
    "DO_NOT_TRACK": "1",
    # Nothing that a page does may change what the tests run with.
    "PIP_DRY_RUN": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PYTHONUNBUFFERED": "1",
}


class Reader:
    """Somebody who does what pages say, in terminals of which some stay open."""

    def __init__(self, env: dict[str, str], home: Path) -> None:
        (programs := home / "programs").mkdir()
        (looks := home / "looks").mkdir()
        (sleep := programs / "sleep").write_text(
            SLEEP.format(sleep=shutil.which("sleep"), looks=looks)
        )
        sleep.chmod(0o755)
        self.env = env | {"PATH": f"{programs}{os.pathsep}{env['PATH']}"}
        self._home = home
        self._looks = looks
        self._open: dict[str, subprocess.Popen[bytes]] = {}
        self._opening = Lock()

    def read(self, page: Path, directory: Path) -> None:
        """Goes through a page from its top to its end."""
        told = ""
        for step in steps(page):
            block = step.block
            if not block.remarks.keys() & ELSEWHERE:
                told = last_told(self._take(step, directory, told)) or told

    def _take(self, step: Step, directory: Path, told: str) -> str:
        block = step.block
        if "file" in block.remarks:
            (directory / block.remarks["file"]).write_text(block.text)
            return ""
        assert told or not re.search(r"\bID\b", block.text), f"{block.place}: of what is this ID?"
        argv = argv_of(block, told)
        if "background" in block.remarks:
            with self._opening:
                self.leave_open(argv, block, directory)
            return ""
        if "terminal" in block.remarks:
            return self._look(argv, step, directory)
        printed = self._run(argv, block, directory)
        for shown in step.shown:
            assert is_shown(shown, printed), f"{block.place} printed\n{printed}"
        return printed

    def _run(self, argv: list[str], block: Block, directory: Path) -> str:
        with subprocess.Popen(
            argv,
            cwd=directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                printed, _ = process.communicate(timeout=SECONDS)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        said = f"{block.place} ended with {process.returncode}\n{printed}"
        assert process.returncode == int(block.remarks.get("exit", 0)), said
        return printed

    def _look(self, argv: list[str], step: Step, directory: Path) -> str:
        *screens, end = step.shown
        with terminal(argv, self.env, columns=160, cwd=directory) as screen:
            with self._looking():
                for shown in screens:
                    screen.until(
                        lambda shown=shown: is_shown(shown, "\n".join(screen.lines)), SECONDS
                    )
            code = screen.wait(SECONDS)
            printed = "\n".join(screen.lines)
        assert code == int(step.block.remarks.get("exit", 0)), printed
        assert is_shown(end, printed), f"{step.block.place} ended with\n{printed}"
        return printed

    @contextmanager
    def _looking(self) -> Iterator[None]:
        (look := self._looks / str(uuid4())).touch()
        try:
            yield
        finally:
            look.unlink()

    def leave_open(self, argv: list[str], block: Block, directory: Path) -> None:
        """Starts what goes on, unless it is open from an earlier page."""
        running = self._open.get(block.text)
        if running is not None and running.poll() is None:
            return
        path = self._home / f"{uuid4()}.out"
        with path.open("wb") as output:
            process = subprocess.Popen(
                argv,
                cwd=directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._open[block.text] = process

        def is_ready() -> bool:
            printed = path.read_text(errors="replace")
            assert process.poll() is None, f"{block.place} has ended\n{printed}"
            return block.remarks["background"] in printed

        until(is_ready, SECONDS)

    def close(self) -> None:
        """Ends what was left open, and what that has started."""
        for process in self._open.values():
            with suppress(psutil.NoSuchProcess):
                started = psutil.Process(process.pid).children(recursive=True)
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                for child in started:
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
                psutil.wait_procs(started, timeout=10)
            process.kill()
            process.wait(10)


def argv_of(block: Block, told: str) -> list[str]:
    if block.language == "python":
        return [sys.executable, "-c", block.text]
    return ["bash", "-euo", "pipefail", "-c", re.sub(r"\bID\b", told, block.text)]


def last_told(printed: str) -> str | None:
    """The execution that something printed tells of: that of its address, else the first."""
    found = re.findall(rf"flow-run/({ID.pattern})", printed) or ID.findall(printed)
    return found[0] if found else None
