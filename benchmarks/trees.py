"""The processes of commands that are stopped, found by their marks, and when they were gone."""

import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

import psutil

from benchmarks.bench import ROOT

sys.path.append(str(ROOT / "tests"))

from running import MARK
from stopped import ARGV, count_ready, plan_of

__all__ = ["ARGV", "MARK", "Trees", "count_ready", "plan_of"]


class Trees:
    """The living processes of commands, each with the mark of one of `marks`, as they are now."""

    def __init__(self, marks: Mapping[str, str]) -> None:
        self._marks = {mark: name for name, mark in marks.items()}
        self._names: dict[int, str] = {}
        self._poll = select.poll()
        for process, name in self._living():
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(process.pid)
                self._names[descriptor] = name
                self._poll.register(descriptor, select.POLLIN)

    def until_gone(self, seconds: float) -> dict[str, float]:
        """Waits; tells when the last process of each name was gone, by the clock on the wall."""
        deadline = time.monotonic() + seconds
        gone: dict[str, float] = {}
        while self._names and time.monotonic() < deadline:
            for descriptor, _ in self._poll.poll(100):
                self._poll.unregister(descriptor)
                os.close(descriptor)
                gone[self._names.pop(descriptor)] = time.time()
        return gone

    def survivors(self) -> int:
        """How many are alive now, those included that came later; they are killed."""
        left = [process for process, _ in self._living()]
        for process in left:
            process.kill()
        return len(left)

    def _living(self) -> Iterator[tuple[psutil.Process, str]]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                name = self._marks.get(process.environ().get(MARK, ""))
                if name is not None and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, name
