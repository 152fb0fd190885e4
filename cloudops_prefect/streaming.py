"""The events of an execution, told from its log while it runs and from the API afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio

from cloudops_prefect.events import line_events
from cloudops_prefect.lines import LineFramer
from cloudops_prefect.models import (
    CancelledEvent,
    CompletedEvent,
    ExecutionStatus,
    FailedEvent,
    ProgressEvent,
    StartedEvent,
    StderrEvent,
    StdoutEvent,
)
from cloudops_prefect.naming import shown_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from uuid import UUID

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.models import (
        ExecutionEvent,
        ExecutionPlan,
        ExecutionRequest,
        ExecutionResult,
    )

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
    request: ExecutionRequest,
    execution_id: UUID,
    config: ExecutionConfig,
    result: Callable[[], Awaitable[ExecutionResult | None]],
) -> AsyncGenerator[ExecutionEvent, None]:
    """Yields a command's events, from the first to the last, at the pace of who takes them.

    Args:
        request: What is executed.
        execution_id: As what.
        config: Tells where its log is, and whether lines are events.
        result: Returns how it ended, None as long as it has not.
    """
    path = config.log_path(execution_id)
    while not path.exists() and (ended := await result()) is None:
        await anyio.sleep(INTERVAL)
    yield StartedEvent(
        execution_id=execution_id, request_id=request.id, command=shown_name(request, config)
    )
    if config.stream_output and path.exists():
        lines = line_events(
            path, execution_id, request.id, still_running=lambda: _is_running(result)
        )
        async for event in lines:
            yield event
    while (ended := await result()) is None:
        await anyio.sleep(INTERVAL)
    if config.stream_output and not path.exists():
        for event in _kept_lines(request, ended):
            yield event
    yield final_event(ended)


async def _is_running(result: Callable[[], Awaitable[ExecutionResult | None]]) -> bool:
    return await result() is None


def _kept_lines(request: ExecutionRequest, result: ExecutionResult) -> list[ExecutionEvent]:
    events: list[ExecutionEvent] = []
    for kind, text in ((StdoutEvent, result.stdout), (StderrEvent, result.stderr)):
        framer = LineFramer()
        lines = [*framer.feed(text.encode()), *framer.flush()]
        events += [
            kind(execution_id=result.execution_id, request_id=request.id, line=line)
            for line in lines
        ]
    return events


async def plan_events(  # noqa: C901, PLR0913, PLR0917 (one stream out of many)
    plan: ExecutionPlan,
    execution_id: UUID,
    config: ExecutionConfig,
    started: Callable[[], Awaitable[dict[int, UUID]]],
    result: Callable[[int], Awaitable[ExecutionResult | None]],
    ended: Callable[[], Awaitable[bool]],
) -> AsyncGenerator[ExecutionEvent, None]:
    """Yields a plan's progress and the events of its commands, each command's in order.

    Args:
        plan: What is executed.
        execution_id: As what.
        config: As for `command_events`.
        started: Returns the execution ids of the commands that have started, by index.
        result: Returns how a command ended, None as long as it has not.
        ended: Whether nothing of the plan will start any more.
    """
    send, receive = anyio.create_memory_object_stream[tuple[int, "ExecutionEvent"]](BUFFERED_EVENTS)

    async def follow(index: int, command_id: UUID) -> None:
        async for event in command_events(
            plan.commands[index], command_id, config, lambda: result(index)
        ):
            await send.send((index, event))

    async def follow_all() -> None:
        followed: set[int] = set()
        async with send, anyio.create_task_group() as tasks:
            while True:
                over = await ended()
                for index, command_id in (await started()).items():
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
