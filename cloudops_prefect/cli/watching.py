"""Executions that are there already, watched or resumed, whoever runs them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

from cloudops_prefect.cli import notes, printing
from cloudops_prefect.cli.api import resolve
from cloudops_prefect.cli.following import (
    Interruption,
    follow,
    impatient,
    interruptible,
    reason_of_failure,
)
from cloudops_prefect.cli.run_facts import execution_of, facts_of_run, item_of
from cloudops_prefect.cli.showing import Showing
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.engine import ExecutionEngine
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.shell_words import command_line

if TYPE_CHECKING:
    from cloudops_prefect.cli.arguments import ShownOptions
    from cloudops_prefect.cli.views import View

_INTERVAL = 1.0


async def watch(id_text: str, options: "ShownOptions") -> int:
    """Shows an execution until it has ended; returns the exit code that says how."""
    execution = await execution_of(await resolve(id_text))
    showing = Showing(item_of(execution), options, in_plan=execution.index is not None)
    try:
        async with (
            ExecutionEngine(ExecutionConfig.load()) as engine,
            _informed(showing.view, execution.id),
        ):
            result = await follow(engine, execution.id, showing.view.show, Interruption())
            reason = await reason_of_failure(engine, result)
    except asyncio.CancelledError:
        # Ctrl-C cancels the task. The id is the whole one: `last` may be another run by then.
        again = command_line("cloudops", "watch", execution.id)
        printing.error_line(f"It goes on; to watch it again: {again}")
        raise
    return showing.end(result, reason=reason)


async def resume(id_text: str, options: "ShownOptions") -> int:
    """Runs what has not completed of an earlier execution; returns the exit code."""
    execution = await execution_of(await resolve(id_text))
    showing = Showing(execution.plan or item_of(execution), options)
    with impatient(), interruptible() as interruption:
        async with ExecutionEngine(ExecutionConfig.load()) as engine:
            again = await engine.resume(execution.id)
            notes.say_what_is_resumed(execution, quiet=options.quiet)
            async with _informed(showing.view, again):
                result = await follow(engine, again, showing.view.show, interruption)
            reason = await reason_of_failure(engine, result)
    return showing.end(result, interruption.signal_number, reason)


@asynccontextmanager
async def _informed(view: "View", execution_id: UUID) -> AsyncGenerator[None]:
    """Draws a view, and tells it what the API knows: what began earlier did not begin just now."""
    async with view.drawn():
        learning = asyncio.create_task(_learn(view, execution_id))
        try:
            yield
        finally:
            learning.cancel()
            with suppress(asyncio.CancelledError):
                await learning


async def _learn(view: "View", execution_id: UUID) -> None:
    wants_more = True
    while wants_more:
        # The stream of events says whether the API has gone for good.
        with suppress(ExecutionIOError):
            wants_more = view.learn(await facts_of_run(execution_id))
        await asyncio.sleep(_INTERVAL)
