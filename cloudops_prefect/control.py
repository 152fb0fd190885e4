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

RUNNERS_MARK = "PREFECT__FLOW_RUN_ID"
"""Names the run in the environment of a process that Prefect starts for it, to end with it."""


class RunControl:
    """Cancels a run or a single command of it; to be used in the event loop of the run."""

    def __init__(self) -> None:
        self.cancelled = False
        self._unwanted: set[UUID] = set()
        self._running: dict[UUID, CommandExecution] = {}
        self._waiting: set[anyio.CancelScope] = set()

    def cancel(self) -> None:
        """Stops what runs, and keeps the rest from starting; once is as good as twice."""
        self.cancelled = True
        for execution in self._running.values():
            execution.stop.request("cancelled")
        for scope in self._waiting:
            scope.cancel()

    def cancel_command(self, execution_id: UUID) -> None:
        """Stops one command, or keeps it from starting."""
        self._unwanted.add(execution_id)
        if (execution := self._running.get(execution_id)) is not None:
            execution.stop.request("cancelled")

    def has_cancelled(self, execution_id: UUID) -> bool:
        """Whether this command was cancelled by itself."""
        return execution_id in self._unwanted

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
            # Who hears of the cancellation from the API is here before the runner's SIGTERM, which
            # then would make a crash of what is about to be told as cancelled. The handler goes
            # with the event loop.
            if not self._controls and not control.cancelled:
                loop.remove_signal_handler(signal.SIGTERM)
                signal.signal(signal.SIGTERM, self._previous)

    def _cancel_all(self) -> None:
        for control in self._controls:
            control.cancel()


sigterm = TerminationSignal()


async def until_terminated() -> None:
    """Returns when a SIGTERM arrives that would have ended this process, which then lives on.

    Never returns where somebody else handles the signal, or outside of the main thread.
    """
    terminated = asyncio.Event()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        await terminated.wait()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    try:
        await terminated.wait()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
