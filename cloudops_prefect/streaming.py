"""The events of an execution, live from its first to its last."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import anyio

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.graph import Wiring
from cloudops_prefect.models import (
    CancelledEvent,
    CompletedEvent,
    ExecutionStatus,
    FailedEvent,
    ProgressEvent,
    StartedEvent,
)
from cloudops_prefect.naming import shown_name
from cloudops_prefect.sources import Ids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator
    from uuid import UUID

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.models import (
        ExecutionEvent,
        ExecutionPlan,
        ExecutionRequest,
        ExecutionResult,
        StreamedEvent,
    )
    from cloudops_prefect.sources import Printed, Source

LOOK_INTERVAL_SECONDS = 0.05
BEGINNING = datetime.min.replace(tzinfo=UTC)

logger = logging.getLogger("cloudops_prefect.streaming")


def final_event(result: ExecutionResult, time: datetime) -> ExecutionEvent:
    """Returns the last event of a command."""
    ids: dict[str, Any] = {"execution_id": result.execution_id, "request_id": result.id}
    match result.status:
        case ExecutionStatus.COMPLETED:
            return CompletedEvent(**ids, result=result, timestamp=time)
        case ExecutionStatus.CANCELLED:
            return CancelledEvent(**ids, timestamp=time)
        case _:
            return FailedEvent(**ids, error=result.error or "failed", timestamp=time)


async def command_events(
    request: ExecutionRequest, ids: Ids, config: ExecutionConfig, source: Source, index: int = 0
) -> AsyncGenerator[Iterable[StreamedEvent], None]:
    """Yields a command's events, from the first to the last, at the pace of who takes them.

    They come in groups, as lines that were printed at once do: an event that goes through an
    asynchronous generator by itself pays for that.

    Args:
        request: What is executed.
        ids: The ids of its events.
        config: Tells whether lines are events.
        source: Tells how its run goes on.
        index: Which command of the run it is.
    """
    command = _Command(request, ids, config, source, index)
    async with aclosing(command.until_its_end()) as groups:
        async for events in groups:
            yield events
    yield [await command.end()]


@dataclass(slots=True)
class _Command:
    """A command as it is told, each event with the time at which it happened.

    A death may have been told by another clock, or as all that is known of the start: the end is
    never told as earlier than a line, and the start of what has ended not as later than the first.

    Attributes:
        last: The time of the last event that was told.
    """

    request: ExecutionRequest
    ids: Ids
    config: ExecutionConfig
    source: Source
    index: int
    last: datetime = BEGINNING

    async def until_its_end(self) -> AsyncGenerator[Iterable[StreamedEvent], None]:
        """Yields all events but the last."""
        while (time := await self._started_at()) is None:
            await anyio.sleep(LOOK_INTERVAL_SECONDS)
        async with aclosing(self._lines()) as groups:
            lines: Iterator[Printed] = iter(())
            if await self.source.result(self.index) is not None:
                lines = await anext(groups, lines)
                time = min(time, self.last) if self.last > BEGINNING else time
            self.last = max(self.last, time)
            yield chain([self._start(time)], lines)
            async for lines in groups:
                yield lines

    async def end(self) -> ExecutionEvent:
        """Returns the last event."""
        while (result := await self.source.result(self.index)) is None:
            await anyio.sleep(LOOK_INTERVAL_SECONDS)
        return final_event(result, max(await self._ended_at(result), self.last))

    async def _started_at(self) -> datetime | None:
        """Returns when the command has started, None as long as it has not."""
        if (start := (await self.source.started()).get(self.index)) is not None:
            return start.time or datetime.now(UTC)
        if (result := await self.source.result(self.index)) is not None:
            return result.started_at or await self._ended_at(result)
        return None

    async def _ended_at(self, result: ExecutionResult) -> datetime:
        # What never ran has no end of its own.
        return result.completed_at or await self.source.ended() or datetime.now(UTC)

    def _start(self, time: datetime) -> StartedEvent:
        return StartedEvent(
            execution_id=self.ids.execution_id,
            request_id=self.request.id,
            command=shown_name(self.request, self.config),
            timestamp=time,
        )

    async def _lines(self) -> AsyncGenerator[Iterator[Printed], None]:
        if not self.config.stream_output:
            return
        try:
            async with aclosing(self.source.lines(self.index, self.ids)) as groups:
                async for lines in groups:
                    # The first has the time of all, which are made when they are asked for.
                    if (first := next(lines, None)) is not None:
                        self.last = max(self.last, first.timestamp)
                        yield chain((first,), lines)
        except ExecutionIOError:
            # The API is gone.
            raise
        except Exception:
            # The last event follows all the same.
            logger.exception("Output of execution %s can't be read", self.ids.execution_id)


async def plan_events(  # noqa: C901 (one stream out of many)
    plan: ExecutionPlan, execution_id: UUID, config: ExecutionConfig, source: Source
) -> AsyncGenerator[Iterable[StreamedEvent], None]:
    """Yields a plan's progress and the events of its commands, each command's in order.

    They come in groups, as those of `command_events` do. Nothing is told of a command before the
    ends of those that it waited for.

    Args:
        plan: What is executed.
        execution_id: As what.
        config: As for `command_events`.
        source: Tells how the run goes on.
    """
    total = len(plan.commands)
    done = 0
    starts = [start.time for start in (await source.started()).values() if start.time]
    # Of what is told of the progress: commands that ran at once may be told in another order.
    last = min(starts, default=await source.ended() or datetime.now(UTC))

    def progress(current: str | None, time: datetime) -> ProgressEvent:
        nonlocal last
        last = max(last, time)
        return ProgressEvent(
            plan_id=plan.id,
            execution_id=execution_id,
            completed=done,
            total=total,
            current_command=current,
            timestamp=last,
        )

    wiring = Wiring.of_plan(plan)
    ends: dict[int, anyio.Event] = {}
    # Without a buffer: each command that is followed has one group of lines in memory.
    send, receive = anyio.create_memory_object_stream["Iterable[StreamedEvent]"]()

    async def follow(index: int, command_id: UUID) -> None:
        # What has completed in an earlier attempt is not followed.
        for earlier in ends.keys() & wiring.predecessors[index]:
            await ends[earlier].wait()
        request = plan.commands[index]
        command = _Command(request, Ids(command_id, request.id), config, source, index)
        async for events in command.until_its_end():
            await send.send(events)
        end = await command.end()
        nonlocal done
        done += 1
        await send.send([end, progress(shown_name(request, config), end.timestamp)])
        ends[index].set()

    async def follow_all() -> None:
        async with send, anyio.create_task_group() as tasks:
            while True:
                over = await source.ended()
                started = {**await source.started()}
                new = started.keys() - ends
                ends.update({index: anyio.Event() for index in new})
                for index in sorted(new):
                    tasks.start_soon(follow, index, started[index].execution_id)
                if over:
                    return
                await anyio.sleep(LOOK_INTERVAL_SECONDS)

    yield [progress(None, last)]
    # Not in a task group: who breaks off the loop leaves a generator to be closed by another task.
    following = asyncio.create_task(follow_all())
    try:
        async for events in receive:
            yield events
        await following
    finally:
        following.cancel()
        # Not before: who waits to send would learn of that, which is an error, not of the end.
        following.add_done_callback(lambda _: receive.close())
    if done < total:
        done = total
        yield [progress(None, await source.ended() or datetime.now(UTC))]
