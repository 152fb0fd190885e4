"""Plans and commands run in the foreground: their output, then how they ended."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING
from uuid import UUID

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.api import resolve
from cloudops_prefect.cli.event_lines import CommandLines
from cloudops_prefect.cli.following import follow, interruptible
from cloudops_prefect.cli.names import command_names
from cloudops_prefect.cli.run_facts import execution_of
from cloudops_prefect.cli.summary import plan_summary
from cloudops_prefect.cli.views import LineView, nothing, view_of
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.engine import ExecutionEngine
from cloudops_prefect.models import PlanExecutionResult
from cloudops_prefect.naming import api_credentials

if TYPE_CHECKING:
    from cloudops_prefect.cli.arguments import ShownOptions
    from cloudops_prefect.models import (
        ExecutionPlan,
        ExecutionRequest,
        ExecutionResult,
    )


async def run_plan(plan: "ExecutionPlan", options: "ShownOptions") -> int:
    """Runs a plan to its end; returns the exit code."""
    names = command_names(plan, api_credentials())
    with interruptible() as interruption:
        async with ExecutionEngine(ExecutionConfig.load()) as engine:
            view = view_of(plan, names, options, engine.ui_url)
            async with view.drawn():
                started = engine.execute_plan(plan)
                result = await follow(engine, started, view.show, interruption)
            ui_url = engine.ui_url(result.execution_id)
    print_plan(result, names, ui_url, json=options.json)
    return exit_codes.of_status(result.status, interruption.signal_number)


async def run_command(request: "ExecutionRequest", *, json: bool, quiet: bool) -> int:
    """Runs one command to its end; returns the command's own exit code."""
    show = single_view(json=json).show
    with interruptible() as interruption:
        async with ExecutionEngine(ExecutionConfig.load()) as engine:
            result = await follow(engine, engine.execute(request), show, interruption)
            ui_url = engine.ui_url(result.execution_id)
    assert not isinstance(result, PlanExecutionResult)  # noqa: S101
    print_command(result, ui_url, json=json, quiet=quiet)
    return exit_codes.of_command(result, interruption.signal_number)


async def resume(id_text: str, options: "ShownOptions") -> int:
    """Runs what has not completed of an earlier execution; returns the exit code."""
    execution_id = await resolve(id_text)
    plan = (await execution_of(execution_id)).plan
    names = [] if plan is None else command_names(plan, api_credentials())
    with interruptible() as interruption:
        async with ExecutionEngine(ExecutionConfig.load()) as engine:
            view = (
                single_view(json=options.json)
                if plan is None
                else view_of(plan, names, options, engine.ui_url)
            )
            async with view.drawn():
                again = _resumed(engine.resume(execution_id), execution_id)
                result = await follow(engine, again, view.show, interruption)
            ui_url = engine.ui_url(result.execution_id)
    if isinstance(result, PlanExecutionResult):
        print_plan(result, names, ui_url, json=options.json)
        return exit_codes.of_status(result.status, interruption.signal_number)
    print_command(result, ui_url, json=options.json, quiet=options.quiet)
    return exit_codes.of_command(result, interruption.signal_number)


async def _resumed(resumption: Awaitable[UUID | None], execution_id: UUID) -> UUID:
    return await resumption or execution_id


def print_plan(
    result: "ExecutionResult | PlanExecutionResult", names: list[str], ui_url: str, *, json: bool
) -> None:
    """Prints how a plan ended."""
    assert isinstance(result, PlanExecutionResult)  # noqa: S101
    if json:
        printing.json_document(result)
        return
    plan_summary(result, names)
    printing.line(f"UI: {ui_url}")


def print_command(result: "ExecutionResult", ui_url: str, *, json: bool, quiet: bool) -> None:
    """Prints how a command ended, whose output has been shown."""
    if json:
        printing.json_document(result)
    elif not quiet:
        if result.error:
            printing.error_line(f"{result.status.value}: {result.error}")
        printing.error_line(f"UI: {ui_url}")


def single_view(*, json: bool) -> LineView:
    """What is shown of one command: what it prints."""
    return LineView(nothing if json else CommandLines().show)
