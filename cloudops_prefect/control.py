"""Stopping a run: the commands that run, and those that wait for their turn."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from uuid import UUID

    from cloudops_prefect.execution import CommandExecution

RUNNERS_MARK = "PREFECT__FLOW_RUN_ID"
"""Names the run in the environment of a process that Prefect starts for it, to end with it."""


class RunControl:
    """Cancels a run or a single command of it; to be used in the event loop of the run."""

    def __init__(self) -> None:
        self._cancellation = asyncio.Event()
        self._unwanted: set[UUID] = set()
        self._running: dict[UUID, CommandExecution] = {}
        self._waiting: dict[anyio.CancelScope, UUID | None] = {}

    @property
    def cancelled(self) -> bool:
        """Whether the run is to end."""
        return self._cancellation.is_set()

    async def until_cancelled(self) -> None:
        """Waits until the run is to end."""
        await self._cancellation.wait()

    def cancel(self) -> None:
        """Stops what runs, and keeps the rest from starting; once is as good as twice."""
        self._cancellation.set()
        for execution in self._running.values():
            execution.stop.request("cancelled")
        for scope in self._waiting:
            scope.cancel()

    def cancel_command(self, execution_id: UUID) -> None:
        """Stops one command, or keeps it from starting."""
        self._unwanted.add(execution_id)
        if (execution := self._running.get(execution_id)) is not None:
            execution.stop.request("cancelled")
        for scope, waiting in self._waiting.items():
            if waiting == execution_id:
                scope.cancel()

    def has_cancelled(self, execution_id: UUID) -> bool:
        """Whether this command was cancelled by itself."""
        return execution_id in self._unwanted

    def runs(self, execution_id: UUID) -> bool:
        """Whether this command has been started and has not ended."""
        return execution_id in self._running

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
    def waiting(self, execution_id: UUID | None = None) -> Generator[None]:
        """Let what waits inside be abandoned when the run is cancelled.

        Args:
            execution_id: The command that waits, which may be cancelled by itself.
        """
        with anyio.CancelScope() as scope:
            self._waiting[scope] = execution_id
            if self.cancelled or execution_id in self._unwanted:
                scope.cancel()
            try:
                yield
            finally:
                del self._waiting[scope]


@dataclass(frozen=True, eq=False, slots=True)
class _Listener:
    loop: asyncio.AbstractEventLoop
    tell: Callable[[int], object]
    signals: tuple[signal.Signals, ...]


class Termination(asyncio.Event):
    """Is set when a signal arrives that would have ended this process."""

    number: int = signal.SIGTERM
    """The signal."""

    def tell(self, number: int) -> None:
        """Says that the signal has arrived."""
        self.number = number
        self.set()


class TerminationSignal:
    """Turns a SIGTERM to this process into the cancellation of its runs.

    So it does a SIGHUP, by which a terminal says that it was closed, where that is not ignored, as
    by nohup, or handled by somebody else.

    Prefect's own handler raises in the middle of whatever runs, which leaves no time to stop
    processes; a worker sends SIGTERM to cancel, and SIGKILL 30 seconds later. A Ctrl-C arrives as
    SIGINT, also in the process that `flow.serve` has started for a run.
    """

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()
        self._previous: dict[int, Any] = {}
        # A forked child has the handler, but not the loops.
        os.register_at_fork(after_in_child=self._listeners.clear)

    @contextmanager
    def cancels(self, control: RunControl) -> Generator[None]:
        """Cancels the run when the signal arrives; without effect outside of the main thread.

        So does a SIGINT, where the process was started for the run. In others it is for whoever
        has called the flow.
        """
        if not _is_main_thread():
            yield
            return
        also = [signal.SIGINT] if _is_interrupted_for_a_run() else []
        also += self._unhandled(signal.SIGHUP)
        listener = self._listen(lambda _: control.cancel(), signal.SIGTERM, *also)
        try:
            yield
        finally:
            # Who hears of the cancellation from the API is here before the runner's SIGTERM, which
            # then would make a crash of what is about to be told as cancelled.
            if not control.cancelled:
                self._leave(listener)

    @contextmanager
    def awaited(self) -> Generator[Termination]:
        """Gives an event, set when a SIGTERM or SIGHUP arrives that would have ended this process.

        The process lives on as long as somebody is inside. The event is never set where somebody
        else handles the signal, or outside of the main thread.
        """
        arrived = Termination()
        heeded = self._unhandled(signal.SIGTERM, signal.SIGHUP)
        if not _is_main_thread() or not heeded:
            yield arrived
            return
        listener = self._listen(arrived.tell, *heeded)
        try:
            yield arrived
        finally:
            self._leave(listener)

    def _unhandled(self, *signals: signal.Signals) -> list[signal.Signals]:
        """Returns those that would end this process, or would if we did not listen already."""
        ours = (signal.SIG_DFL, self._on_signal)
        return [number for number in signals if signal.getsignal(number) in ours]

    def _listen(self, tell: Callable[[int], object], *signals: signal.Signals) -> _Listener:
        for number in signals:
            if signal.getsignal(number) != self._on_signal:
                self._previous[number] = signal.signal(number, self._on_signal)
        listener = _Listener(asyncio.get_running_loop(), tell, signals)
        self._listeners.add(listener)
        return listener

    def _leave(self, listener: _Listener) -> None:
        self._listeners.discard(listener)
        for number in listener.signals:
            is_ours = signal.getsignal(number) == self._on_signal
            if is_ours and not any(number in one.signals for one in self._listeners):
                signal.signal(number, self._previous[number])

    def _on_signal(self, number: int, _: object) -> None:
        # A loop may end without a word to who listens.
        listening = [
            one for one in self._listeners if number in one.signals and not one.loop.is_closed()
        ]
        for listener in listening:
            listener.loop.call_soon_threadsafe(listener.tell, number)
        if not listening:
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)


sigterm = TerminationSignal()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_interrupted_for_a_run() -> bool:
    """Whether a worker has started this process, or `flow.serve`, which does it without a mark.

    What nohup or a script has put into the background is to go on.
    """
    is_for_a_run = RUNNERS_MARK in os.environ or multiprocessing.parent_process() is not None
    return is_for_a_run and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
