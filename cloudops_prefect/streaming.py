"""The events of an execution, live from its first to its last."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio

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
    from collections.abc import AsyncGenerator
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
BUFFERED_EVENTS = 100


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
) -> AsyncGenerator[ExecutionEvent, None]:
    """Yields a command's events, from the first to the last, at the pace of who takes them.

    Args:
        request: What is executed.
        ids: The ids of its events.
        config: Tells whether lines are events.
        source: Tells how its run goes on.
        index: Which command of the run it is.
    """
    while index not in await source.started() and await source.result(index) is None:
        await anyio.sleep(INTERVAL)
    yield StartedEvent(
        execution_id=ids.execution_id, request_id=request.id, command=shown_name(request, config)
    )
    if config.stream_output:
        async with aclosing(source.lines(index, ids)) as lines:
            async for event in lines:
                yield event
    while (result := await source.result(index)) is None:
        await anyio.sleep(INTERVAL)
    yield final_event(result)


async def plan_events(  # noqa: C901 (one stream out of many)
    plan: ExecutionPlan, execution_id: UUID, config: ExecutionConfig, source: Source
) -> AsyncGenerator[ExecutionEvent, None]:
    """Yields a plan's progress and the events of its commands, each command's in order.

    Args:
        plan: What is executed.
        execution_id: As what.
        config: As for `command_events`.
        source: Tells how the run goes on.
    """
    send, receive = anyio.create_memory_object_stream[tuple[int, "ExecutionEvent"]](BUFFERED_EVENTS)

    async def follow(index: int, command_id: UUID) -> None:
        request = plan.commands[index]
        ids = Ids(command_id, request.id)
        async for event in command_events(request, ids, config, source, index):
            await send.send((index, event))

    async def follow_all() -> None:
        followed: set[int] = set()
        async with send, anyio.create_task_group() as tasks:
            while True:
                over = await source.ended()
                for index, command_id in [*(await source.started()).items()]:
                    if index not in followed:
                        followed.add(index)
                        tasks.start_soon(follow, index, command_id)
                if over:
                    return
                await anyio.sleep(INTERVAL)

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

    yield progress(None)
    # Not in a task group: who breaks off the loop leaves a generator to be closed by another task.
    following = asyncio.create_task(follow_all())
    try:
        async for index, event in receive:
            yield event
            if event.event_type in {"completed", "failed", "cancelled"}:
                done += 1
                yield progress(shown_name(plan.commands[index], config))
        await following
    finally:
        following.cancel()
        receive.close()
    if done < total:
        done = total
        yield progress(None)
