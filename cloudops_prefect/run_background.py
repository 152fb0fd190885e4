"""When the processes end that commands leave in the background on purpose: with their run."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from prefect.context import FlowRunContext

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from uuid import UUID

    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

    from cloudops_prefect.control import RunControl
    from cloudops_prefect.execution import CommandExecution

_of_called_flows: dict[UUID, list[CommandExecution]] = {}
"""What commands have left running that flows of users have called as tasks."""


@asynccontextmanager
async def background_of_run(
    control: RunControl, executions: Mapping[int, CommandExecution]
) -> AsyncGenerator[None]:
    """Stop what commands have left in the background when the run inside ends or is cancelled.

    Args:
        control: What cancels the run.
        executions: Those that have been started; more may come.
    """
    on_cancellation = asyncio.create_task(_end_on_cancellation(control, executions))
    try:
        yield
        if control.cancelled:
            await on_cancellation
        await _end_all(executions.values())
    finally:
        on_cancellation.cancel()
        for execution in [*executions.values()]:
            execution.kill_background()


async def _end_on_cancellation(
    control: RunControl, executions: Mapping[int, CommandExecution]
) -> None:
    await control.until_cancelled()
    await _end_all(executions.values())


async def _end_all(executions: Iterable[CommandExecution]) -> None:
    async with anyio.create_task_group() as tasks:
        for execution in [*executions]:
            tasks.start_soon(execution.end_background)


async def end_with_called_flow(execution: CommandExecution) -> None:
    """Stop what a command has left in the background when the flow ends that has called its task.

    At once, if no flow has called it. If the flow's process ends without a final state of the
    flow run, the guard of that process stops it.
    """
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        await execution.end_background()
        return
    _of_called_flows.setdefault(context.flow_run.id, []).append(execution)
    _call_at_end_of(context.flow)


def _call_at_end_of(flow: Flow[..., Any]) -> None:
    # Prefect calls these wherever the flow runs, once the run has its final state.
    if _end_background_processes not in flow.on_completion_hooks:
        flow.on_completion(_end_background_processes)
        flow.on_failure(_end_background_processes)
        flow.on_crashed(_end_background_processes)
        flow.on_cancellation(_end_background_processes)


async def _end_background_processes(
    flow: Flow[..., Any],  # noqa: ARG001 (Prefect gives it)
    flow_run: FlowRun,
    state: State[Any],  # noqa: ARG001
) -> None:
    await _end_all(_of_called_flows.pop(flow_run.id, ()))
