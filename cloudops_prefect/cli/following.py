"""An execution followed to its end, and cancelled by the signals that end a program."""

import logging
import signal
from asyncio import Event, get_running_loop
from collections.abc import Callable, Generator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

import anyio
import anyio.lowlevel

from cloudops_prefect import api_timeout
from cloudops_prefect.cli.printing import error_line
from cloudops_prefect.errors import ExecutionIOError, ExecutionNotRunningError
from cloudops_prefect.shell_words import command_line

if TYPE_CHECKING:
    from cloudops_prefect.engine import ExecutionEngine
    from cloudops_prefect.models import ExecutionResult, PlanExecutionResult, StreamedEvent

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REST = 2.0
"""Seconds for the rest of the output, once what was interrupted has ended."""
_PAUSE = 0.1


@dataclass
class Interruption:
    """The first signal that asked us to end, once there is one."""

    signal_number: int | None = None
    came: Event = field(default_factory=Event)

    def on_signal(self, signal_number: int) -> None:
        """Takes the first one as the wish to cancel; nothing ends the wait for the processes."""
        if self.signal_number is not None:
            error_line("Still waiting for the processes to be gone ...")
            return
        self.signal_number = signal_number
        self.came.set()
        error_line("Cancelling, and waiting for the processes to be gone ...")


@contextmanager
def interruptible() -> Generator[Interruption]:
    """Turns SIGINT, SIGTERM and SIGHUP into an interruption, but for those that are ignored."""
    interruption, loop = Interruption(), get_running_loop()
    # nohup and background jobs of scripts have us ignore some of them, and mean it.
    heeded = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        loop.add_signal_handler(number, interruption.on_signal, number)
    try:
        yield interruption
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


async def follow(
    engine: "ExecutionEngine",
    execution_id: UUID,
    show: Callable[["StreamedEvent"], None],
    interruption: Interruption,
) -> "ExecutionResult | PlanExecutionResult":
    """Shows what an execution does until it has ended; cancels it on an interruption.

    Args:
        engine: What runs it.
        execution_id: Which.
        show: Is called with each event.
        interruption: What asks for the end.

    Raises:
        ExecutionIOError: if the API does not answer any more.
    """
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on, interruption, engine, execution_id, tasks.cancel_scope)
        try:
            await _show_all(engine, execution_id, show)
        except ExecutionIOError as error:
            if execution_id not in api_timeout.given_up:
                raise
            silence = (
                f"the Prefect API has not answered for {api_timeout.ANSWER_TIMEOUT_SECONDS:g} s"
            )
            raise ExecutionIOError(f"the run is over, but not recorded: {silence}") from error
        tasks.cancel_scope.cancel()
    return await engine.wait(execution_id)


async def reason_of_failure(
    engine: "ExecutionEngine", result: "ExecutionResult | PlanExecutionResult"
) -> str | None:
    """Return why a plan failed if none of its commands says so, else None."""
    commands = getattr(result, "results", ())
    if not commands or result.status != "failed" or any(one.error for one in commands):
        return None
    return (await engine.get_result(result.execution_id)).error


@contextmanager
def impatient() -> Generator[None]:
    """Has a run of this process that is over given up if the API is gone, and says so."""
    notice = _Notice()
    api_timeout.logger.addHandler(notice)
    api_timeout.ended_runs_too = True
    try:
        yield
    finally:
        api_timeout.ended_runs_too = False
        api_timeout.logger.removeHandler(notice)


class _Notice(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        timeout = f"{api_timeout.ANSWER_TIMEOUT_SECONDS:g} s"
        error_line(f"{record.getMessage()}: waiting for it for up to {timeout} ...")


async def _show_all(
    engine: "ExecutionEngine", execution_id: UUID, show: Callable[["StreamedEvent"], None]
) -> None:
    async with aclosing(engine.stream(execution_id, unfinished_lines=True)) as events:
        paused = monotonic()
        async for event in events:
            show(event)
            # A slow terminal takes seconds for lines that come in one piece.
            if monotonic() - paused > _PAUSE:
                await anyio.lowlevel.checkpoint()
                paused = monotonic()


async def _cancel_on(
    interruption: Interruption,
    engine: "ExecutionEngine",
    execution_id: UUID,
    following: anyio.CancelScope,
) -> None:
    await interruption.came.wait()
    with suppress(ExecutionNotRunningError):
        await engine.cancel(execution_id)
    # That the API does not answer is told by who follows.
    with suppress(ExecutionIOError):
        await engine.wait(execution_id)
        # What a flood has printed by then may take a terminal minutes.
        await anyio.sleep(REST)
        logs = command_line("cloudops", "logs", execution_id)
        error_line(f"The rest of its output is in its log: {logs}")
        following.cancel()
