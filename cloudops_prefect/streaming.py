"""The events of an execution, live from its first to its last."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio

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
    from collections.abc import AsyncGenerator, Iterable
    from uuid import UUID

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.models import (
        ExecutionEvent,
        ExecutionPlan,
        ExecutionRequest,
        ExecutionResult,
    )
    from cloudops_prefect.sources import Source

INTERVAL = 0.05


def final_event(result: ExecutionResult) -> ExecutionEvent:
    """Returns the last event of a command."""
    ids: dict[str, Any] = {"execution_id": result.execution_id, "request_id": result.id}
    match result.status:
        case ExecutionStatus.COMPLETED:
            return CompletedEvent(**ids, result=result)
        case ExecutionStatus.CANCELLED:
            return CancelledEvent(**ids)
        case _:
            return FailedEvent(**ids, error=result.error or "failed")


async def command_events(
    request: ExecutionRequest, ids: Ids, config: ExecutionConfig, source: Source, index: int = 0
) -> AsyncGenerator[Iterable[ExecutionEvent], None]:
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
    async with aclosing(_until_its_end(request, ids, config, source, index)) as groups:
        async for events in groups:
            yield events
    yield [await _end(source, index)]


async def _until_its_end(
    request: ExecutionRequest, ids: Ids, config: ExecutionConfig, source: Source, index: int
) -> AsyncGenerator[Iterable[ExecutionEvent], None]:
    while index not in await source.started() and await source.result(index) is None:
        await anyio.sleep(INTERVAL)
    command = shown_name(request, config)
    yield [StartedEvent(execution_id=ids.execution_id, request_id=request.id, command=command)]
    if config.stream_output:
        async with aclosing(source.lines(index, ids)) as lines:
            async for events in lines:
                yield events


async def _end(source: Source, index: int) -> ExecutionEvent:
    while (result := await source.result(index)) is None:
        await anyio.sleep(INTERVAL)
    return final_event(result)


async def plan_events(  # noqa: C901 (one stream out of many)
    plan: ExecutionPlan, execution_id: UUID, config: ExecutionConfig, source: Source
) -> AsyncGenerator[Iterable[ExecutionEvent], None]:
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

    def progress(current: str | None) -> ProgressEvent:
        return ProgressEvent(
            plan_id=plan.id,
            execution_id=execution_id,
            completed=done,
            total=total,
            current_command=current,
        )

    wiring = Wiring.of_plan(plan)
    ends: dict[int, anyio.Event] = {}
    # Without a buffer: each command that is followed has one group of lines in memory.
    send, receive = anyio.create_memory_object_stream["Iterable[ExecutionEvent]"]()

    async def follow(index: int, command_id: UUID) -> None:
        # What has completed in an earlier attempt is not followed.
        for earlier in ends.keys() & wiring.predecessors[index]:
            await ends[earlier].wait()
        request = plan.commands[index]
        ids = Ids(command_id, request.id)
        async for events in _until_its_end(request, ids, config, source, index):
            await send.send(events)
        end = await _end(source, index)
        nonlocal done
        done += 1
        await send.send([end, progress(shown_name(request, config))])
        ends[index].set()

    async def follow_all() -> None:
        async with send, anyio.create_task_group() as tasks:
            while True:
                over = await source.ended()
                started = {**await source.started()}
                new = started.keys() - ends
                ends.update({index: anyio.Event() for index in new})
                for index in sorted(new):
                    tasks.start_soon(follow, index, started[index])
                if over:
                    return
                await anyio.sleep(INTERVAL)

    yield [progress(None)]
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
        yield [progress(None)]
