"""Telling readers in this process, whichever thread they live in, that a file has grown."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from pathlib import Path


class Doorbell:
    """Wakes those who wait for it, each in its own event loop; costs nothing while nobody does.

    `Doorbell.at(path)` is the same object for everybody in the process.
    """

    def __init__(self) -> None:
        self.has_ringer = False
        """Whether the one who rings is in this process, so that waiting needs no polling."""
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lock = threading.Lock()

    @staticmethod
    def at(path: Path) -> Doorbell:
        """Return the bell of a file."""
        key = os.path.realpath(path)
        with _lock:
            bell = _bells.get(key)
            if bell is None:
                bell = _bells[key] = Doorbell()
            return bell

    def listen(self) -> asyncio.Event:
        """Return an event of the running loop that the next `ring` sets."""
        event = asyncio.Event()
        with self._lock:
            self._waiting.append((asyncio.get_running_loop(), event))
        return event

    def forget(self, event: asyncio.Event) -> None:
        """Stop waiting with an event of `listen`."""
        with self._lock:
            self._waiting = [waiting for waiting in self._waiting if waiting[1] is not event]

    def ring(self) -> None:
        """Wake everybody who listens, from any thread."""
        if not self._waiting:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:
                # The loop was closed with its reader still in it.
                continue


_bells: WeakValueDictionary[str, Doorbell] = WeakValueDictionary()
_lock = threading.Lock()
