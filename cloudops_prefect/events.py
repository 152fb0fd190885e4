"""Handlers of events, and how events reach them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO, TypeAlias, runtime_checkable

import anyio
import anyio.to_thread
from pydantic import TypeAdapter

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.journal_writer import write_all
from cloudops_prefect.lines import follow_groups
from cloudops_prefect.models import (
    CancelledEvent,
    CompletedEvent,
    FailedEvent,
    ProgressEvent,
    StartedEvent,
    StderrEvent,
    StdoutEvent,
    UnfinishedLine,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
    )
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from uuid import UUID

    from cloudops_prefect.framing import LineGroup
    from cloudops_prefect.journal import Position
    from cloudops_prefect.models import ExecutionEvent, ExecutionResult

_log = logging.getLogger(__name__)

_NOTIFY_TIMEOUT = 30.0
_NOTIFIABLE = frozenset({"started", "completed", "failed", "cancelled"})

LineEvent: TypeAlias = StdoutEvent | StderrEvent
# What a model's __init__ calls, which itself takes longer than all else that is done with a line.
_MAKERS = {
    event: TypeAdapter(event).validator.validate_python for event in (StdoutEvent, StderrEvent)
}


@runtime_checkable
class EventHandler(Protocol):
    """What is told about executions while they run."""

    async def on_event(self, event: ExecutionEvent) -> None:
        """Take an event; the next one comes once this returns."""
        ...


class ConsoleHandler:
    """Prints lines where the command printed them, and everything else to standard error.

    Lines have their command's name before them once more than one execution is seen.

    Args:
        stdout: Where lines of standard output go; `sys.stdout` if absent.
        stderr: Where all else goes; `sys.stderr` if absent.
    """

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._names = _Names()
        self._several = False

    async def on_event(self, event: ExecutionEvent) -> None:
        """Print the event."""
        name = self._names.of(event)
        if isinstance(event, StdoutEvent | StderrEvent):
            is_error = isinstance(event, StderrEvent)
            line = f"[{name}] {event.line}" if self._several else event.line
        else:
            self._several = self._several or self._names.seen > 1 or _is_of_several(event)
            is_error = True
            line = f"[cloudops] {_summary(event, name)}"
        if is_error:
            _print(self._stderr or sys.stderr, line)
        else:
            _print(self._stdout or sys.stdout, line)


class JsonLinesHandler:
    """Appends every event to a file as one line of JSON, at once.

    The file is made with rights 0600 if it isn't there, as are the directories above it. Several
    handlers, also of several processes, may share a file.

    Raises:
        ExecutionIOError: The file can't be opened, or written later on.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path = Path(path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd: int | None = os.open(path, flags, 0o600)
        except OSError as error:
            raise ExecutionIOError(f"event file {path}: {error.strerror}") from error

    async def on_event(self, event: ExecutionEvent) -> None:
        """Append the event."""
        if self._fd is None:
            raise ExecutionIOError(f"event file {self.path}: closed")
        # In one write, which O_APPEND keeps in one piece.
        _, error = write_all(self._fd, event.model_dump_json().encode() + b"\n")
        if error is not None:
            raise ExecutionIOError(f"event file {self.path}: {error.strerror}") from error

    async def aclose(self) -> None:
        """Close the file. Twice is once."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class FanOutHandler:
    """Gives every event to several handlers, one after the other.

    One that raises is logged, and keeps nothing from the others.
    """

    def __init__(self, handlers: Iterable[EventHandler]) -> None:
        self._receivers = [_Receiver(handler) for handler in handlers]

    async def on_event(self, event: ExecutionEvent) -> None:
        """Give the event to each handler."""
        await self.on_events([event])

    async def on_events(self, events: Iterable[ExecutionEvent]) -> None:
        """Give each handler the events, the next once all are done with the one before."""
        for event in events:
            for receiver in self._receivers:
                try:
                    await receiver.on_event(event)
                except asyncio.CancelledError:
                    # Also what a handler raises that has awaited a cancelled task of its own.
                    if (task := asyncio.current_task()) is None or task.cancelling():
                        raise
                    receiver.failed(event)
                except Exception:  # noqa: BLE001 (whatever a handler raises, the run goes on)
                    receiver.failed(event)

    async def aclose(self) -> None:
        """Close those of the handlers that can be closed."""
        for receiver in self._receivers:
            await receiver.aclose()


class Notifier(Protocol):
    """What can send a message, as Prefect's notification blocks do; `notify` may be async."""

    @property
    def notify(self) -> Callable[..., Any]:
        """Send a body and a subject, the two positional arguments."""
        ...


class NotificationHandler:
    """Sends a message through a notification block when an execution ends badly.

    What fails there, or takes longer than 30 s, is logged and never raised.

    Args:
        block: A loaded Prefect notification block, or anything else with `notify(body, subject)`.
        on: The event types to tell about, of `started`, `completed`, `failed`, `cancelled`.

    Raises:
        ValueError: There is another event type in `on`.
    """

    def __init__(
        self, block: Notifier, *, on: AbstractSet[str] = frozenset({"failed", "cancelled"})
    ) -> None:
        if unknown := set(on) - _NOTIFIABLE:
            raise ValueError(f"no such events to notify of: {', '.join(sorted(unknown))}")
        self._block = block
        self._on = frozenset(on)
        self._names = _Names()

    async def on_event(self, event: ExecutionEvent) -> None:
        """Send a message if the event is one of those to tell about."""
        name = self._names.of(event)
        if event.event_type not in self._on:
            return
        subject = f"cloudops: {name} {event.event_type}"
        details = (f"execution: {event.execution_id}", f"time: {event.timestamp.isoformat()}")
        body = "\n".join((_summary(event, name), *details))
        try:
            with anyio.fail_after(_NOTIFY_TIMEOUT):
                await self._notify(body, subject)
        except Exception:  # noqa: BLE001 (a command must not fail for its message)
            _log.exception("could not send the notification %r", subject)

    async def _notify(self, body: str, subject: str) -> None:
        notify = getattr(self._block, "anotify", self._block.notify)
        if inspect.iscoroutinefunction(notify):
            await notify(body, subject)
            return
        # In a thread, because it may block for as long as a mail server pleases.
        sent: Awaitable[object] | object = await anyio.to_thread.run_sync(
            notify, body, subject, abandon_on_cancel=True
        )
        if inspect.isawaitable(sent):
            await sent


async def deliver(groups: AsyncIterable[Iterable[ExecutionEvent]], handler: FanOutHandler) -> None:
    """Give handlers every event, the next once they are done with the one before."""
    async for events in groups:
        await handler.on_events(events)


async def line_events(  # noqa: PLR0913 (what its events are of, and what `follow_groups` takes)
    path: Path,
    execution_id: UUID,
    request_id: UUID,
    *,
    start: Position | None = None,
    still_running: Callable[[], bool | Awaitable[bool]] | None = None,
    unfinished: bool = False,
) -> AsyncGenerator[Iterator[LineEvent | UnfinishedLine], None]:
    """Yield the lines of a log as events, from the first, while it is being written and to its end.

    They come in groups of what has been printed at once, since each event that goes through an
    asynchronous generator by itself pays for that. Lines wait in the log for whoever is slow to
    take them. Notes of ours are no events.

    Args:
        path: The log of the execution.
        execution_id: Whose log it is.
        request_id: And of which request.
        start: As for `follow_groups`.
        still_running: As for `follow_groups`.
        unfinished: As for `follow_groups`.

    Raises:
        ExecutionIOError: The log exists and can't be read.
    """
    groups = follow_groups(path, start=start, still_running=still_running, unfinished=unfinished)
    async with aclosing(groups):
        async for group in groups:
            if group.kind == "note":
                continue
            if group.unfinished is not None:
                yield iter((unfinished_line(group, execution_id, request_id),))
                continue
            event = StdoutEvent if group.kind == "stdout" else StderrEvent
            yield events_of(event, group.lines, execution_id, request_id, group.time)


def unfinished_line(group: LineGroup, execution_id: UUID, request_id: UUID) -> UnfinishedLine:
    """Return what a group has in place of lines."""
    return UnfinishedLine(
        execution_id=execution_id,
        request_id=request_id,
        stream="stderr" if group.kind == "stderr" else "stdout",
        line=group.unfinished or "",
        timestamp=group.time,
    )


def events_of(
    event: type[LineEvent],
    lines: Iterable[str],
    execution_id: UUID,
    request_id: UUID,
    timestamp: datetime,
) -> Iterator[LineEvent]:
    """Make an event of each line when it is asked for: events take many times what lines do."""
    make = _MAKERS[event]
    for line in lines:
        yield make(
            {
                "execution_id": execution_id,
                "request_id": request_id,
                "line": line,
                "timestamp": timestamp,
            }
        )


class _Receiver:
    """A handler whose errors are nobody else's."""

    def __init__(self, handler: EventHandler) -> None:
        self.handler = handler
        self.on_event = handler.on_event
        self._failures = 0

    def failed(self, event: ExecutionEvent) -> None:
        """Log the exception that the handler has just raised."""
        self._failures += 1
        # One that fails for a line mostly fails for a million lines.
        level = logging.ERROR if self._failures == 1 else logging.DEBUG
        _log.log(
            level,
            "event handler %s failed on a %r event and goes on; "
            "further failures of it are logged as DEBUG",
            type(self.handler).__name__,
            event.event_type,
            exc_info=True,
        )

    async def aclose(self) -> None:
        close = getattr(self.handler, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception:  # noqa: BLE001 (whatever a handler raises, the run goes on)
            _log.exception("could not close event handler %s", type(self.handler).__name__)


class _Names:
    """What to call executions: their command, from their first event to their last."""

    def __init__(self) -> None:
        self._names: dict[UUID, str] = {}
        self.seen = 0

    def of(self, event: ExecutionEvent) -> str:
        execution_id = event.execution_id
        if isinstance(event, StartedEvent):
            self.seen += 1
            self._names[execution_id] = event.command
        if isinstance(event, CompletedEvent | FailedEvent | CancelledEvent):
            return self._names.pop(execution_id, str(execution_id))
        return self._names.get(execution_id, str(execution_id))


def _is_of_several(event: ExecutionEvent) -> bool:
    return isinstance(event, ProgressEvent) and event.total > 1


def _summary(event: ExecutionEvent, name: str) -> str:
    match event:
        case CompletedEvent(result=result):
            took = f"{result.duration.total_seconds():.1f} s"
            return f"{name} completed after {took}{leftovers_text(result)}"
        case FailedEvent(error=error):
            return f"{name} failed: {error}"
        case ProgressEvent(completed=completed, total=total, current_command=current):
            return f"{completed} of {total} done" + (f", {current}" if current else "")
        case _:
            return f"{name} {event.event_type}"


def leftovers_text(result: ExecutionResult) -> str:
    """Return what is added to a sentence about a result that has leftovers."""
    stopped = ", ".join(result.leftovers)
    return f"; stopped in the background: {stopped}" if stopped else ""


def _print(stream: TextIO | None, line: str) -> None:
    # As Python has it in a process that was started without this stream.
    if stream is None:
        return
    try:
        stream.write(f"{line}\n")
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(f"{line}\n".encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
