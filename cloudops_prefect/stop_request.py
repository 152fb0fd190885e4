"""Asking commands to stop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

StopReason: TypeAlias = Literal["timeout", "cancelled"]


class StopRequest:
    """Asks one or many commands to stop; made once, never taken back. Safe from any thread."""

    def __init__(self) -> None:
        self._reason: StopReason | None = None
        self._callbacks: set[Callable[[], object]] = set()
        self._lock = threading.Lock()

    @property
    def reason(self) -> StopReason | None:
        """Why, or None as long as nobody asked."""
        return self._reason

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._reason is not None

    def request(self, reason: StopReason) -> None:
        """Ask. The first reason stays."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def subscribe(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when a stop is requested; at once if it has been.

        It is called in the thread that requests.
        """
        with self._lock:
            self._callbacks.add(callback)
        if self._reason is not None:
            callback()

    def unsubscribe(self, callback: Callable[[], object]) -> None:
        """Take a callback back; nothing happens if it isn't there."""
        with self._lock:
            self._callbacks.discard(callback)

    async def wait(self) -> StopReason:
        """Wait until somebody asks."""
        wakeup = Wakeup(asyncio.get_running_loop())
        self.subscribe(wakeup.set_from_any_thread)
        try:
            while self._reason is None:
                await wakeup.wait()
        finally:
            self.unsubscribe(wakeup.set_from_any_thread)
        return self._reason


class Wakeup:
    """Wakes the one task that waits for it. Set while nobody waits, it is not lost."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake; in the loop's own thread."""
        self._set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def set_from_any_thread(self) -> None:
        """Wake; nothing happens if the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.set)

    async def wait(self) -> None:
        """Return at once if it was set since the last return, else wait."""
        try:
            if not self._set:
                self._waiter = self._loop.create_future()
                await self._waiter
        finally:
            self._waiter = None
            self._set = False
