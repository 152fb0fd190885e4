"""A run watched to its end, whoever runs it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

from cloudops_prefect.cli import exit_codes
from cloudops_prefect.cli.api import resolve
from cloudops_prefect.cli.live_view import LiveView
from cloudops_prefect.cli.names import command_names
from cloudops_prefect.cli.run_facts import execution_of, facts_of_run
from cloudops_prefect.cli.running import print_command, print_plan, single_view
from cloudops_prefect.cli.views import view_of
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.engine import ExecutionEngine
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.models import PlanExecutionResult
from cloudops_prefect.naming import api_credentials

if TYPE_CHECKING:
    from cloudops_prefect.cli.arguments import ShownOptions
    from cloudops_prefect.cli.views import View

_INTERVAL = 1.0


async def watch(id_text: str, options: "ShownOptions") -> int:
    """Shows an execution until it has ended; returns the exit code that says how."""
    execution_id = await resolve(id_text)
    execution = await execution_of(execution_id)
    plan = execution.plan if execution.index is None else None
    names = [] if plan is None else command_names(plan, api_credentials())
    async with ExecutionEngine(ExecutionConfig.load()) as engine:
        if plan is None:
            view = single_view(json=options.json)
        else:
            view = view_of(plan, names, options, engine.ui_url)
        async with view.drawn(), _informed(view, execution_id):
            async for event in engine.stream(execution_id):
                view.show(event)
        result = await engine.wait(execution_id)
        ui_url = engine.ui_url(result.execution_id)
    if isinstance(result, PlanExecutionResult):
        print_plan(result, names, ui_url, json=options.json)
        return exit_codes.of_status(result.status)
    print_command(result, ui_url, json=options.json, quiet=options.quiet)
    return exit_codes.of_command(result)


@asynccontextmanager
async def _informed(view: "View", execution_id: UUID) -> AsyncGenerator[None]:
    """Tells a live view what the API knows: what began earlier did not begin just now."""
    if not isinstance(view, LiveView):
        yield
        return
    learning = asyncio.create_task(_learn(view, execution_id))
    try:
        yield
    finally:
        learning.cancel()
        with suppress(asyncio.CancelledError):
            await learning


async def _learn(view: LiveView, execution_id: UUID) -> None:
    while True:
        # The stream of events says whether the API has gone for good.
        with suppress(ExecutionIOError):
            view.state.learn(await facts_of_run(execution_id))
        await asyncio.sleep(_INTERVAL)
