"""The processes of commands that are stopped, found by their marks, and when they were gone."""

import os
import select
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress

import psutil
from running import MARK


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

    def told(self, asked: float, seconds: float) -> dict[str, dict[str, float]]:
        """Waits, and tells of each name how long it took, and how many processes it has left.

        What is alive then, that which came later included, is killed.

        Args:
            asked: When their end was asked for, by the clock on the wall.
            seconds: How long to wait for it.
        """
        gone = self._until_gone(seconds)
        left = [*self._living()]
        for process, _ in left:
            process.kill()
        survivors = Counter(name for _, name in left)
        return {
            name: {"seconds": gone.get(name, asked + seconds) - asked, "survivors": survivors[name]}
            for name in self._marks.values()
        }

    def _until_gone(self, seconds: float) -> dict[str, float]:
        """Waits; tells when the last process of each name was gone."""
        deadline = time.monotonic() + seconds
        gone: dict[str, float] = {}
        while self._names and time.monotonic() < deadline:
            for descriptor, _ in self._poll.poll(100):
                self._poll.unregister(descriptor)
                os.close(descriptor)
                gone[self._names.pop(descriptor)] = time.time()
        return gone

    def _living(self) -> Iterator[tuple[psutil.Process, str]]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                name = self._marks.get(process.environ().get(MARK, ""))
                if name is not None and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, name
