"""Stopping a run: the commands that run, and those that wait for their turn."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Generator
    from uuid import UUID

    from cloudops_prefect.execution import CommandExecution


class RunControl:
    """Cancels a run or a single command of it; to be used in the event loop of the run."""

    def __init__(self) -> None:
        self.cancelled = False
        self._running: dict[UUID, CommandExecution] = {}
        self._waiting: set[anyio.CancelScope] = set()

    def cancel(self) -> None:
        """Stops what runs, and keeps the rest from starting; once is as good as twice."""
        self.cancelled = True
        for execution in self._running.values():
            execution.stop.request("cancelled")
        for scope in self._waiting:
            scope.cancel()

    def cancel_command(self, execution_id: UUID) -> bool:
        """Stops one command, and says whether it was running."""
        execution = self._running.get(execution_id)
        if execution is not None:
            execution.stop.request("cancelled")
        return execution is not None

    @contextmanager
    def running(self, execution: CommandExecution) -> Generator[None]:
        """Lets the command be stopped while it runs inside."""
        self._running[execution.execution_id] = execution
        if self.cancelled:
            execution.stop.request("cancelled")
        try:
            yield
        finally:
            del self._running[execution.execution_id]

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Lets what waits inside be abandoned when the run is cancelled."""
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            if self.cancelled:
                scope.cancel()
            try:
                yield
            finally:
                self._waiting.discard(scope)


class TerminationSignal:
    """Turns a SIGTERM to this process into the cancellation of its runs.

    Prefect's own handler raises in the middle of whatever runs, which leaves no time to stop
    processes; a worker sends SIGTERM to cancel, and SIGKILL 30 seconds later.
    """

    def __init__(self) -> None:
        self._controls: list[RunControl] = []
        self._previous: Any = None

    @contextmanager
    def cancels(self, control: RunControl) -> Generator[None]:
        """Cancels the run when the signal arrives; without effect outside of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        if not self._controls:
            self._previous = signal.getsignal(signal.SIGTERM)
            loop.add_signal_handler(signal.SIGTERM, self._cancel_all)
        self._controls.append(control)
        try:
            yield
        finally:
            self._controls.remove(control)
            if not self._controls:
                loop.remove_signal_handler(signal.SIGTERM)
                signal.signal(signal.SIGTERM, self._previous)

    def _cancel_all(self) -> None:
        for control in self._controls:
            control.cancel()


sigterm = TerminationSignal()
