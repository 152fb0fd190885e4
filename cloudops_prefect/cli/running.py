"""Plans and commands run in the foreground: their output, then how they ended."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING
from uuid import UUID

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.api import resolve
from cloudops_prefect.cli.event_lines import CommandLines, PlanLines
from cloudops_prefect.cli.following import follow, interruptible
from cloudops_prefect.cli.names import command_names
from cloudops_prefect.cli.run_facts import names_of_run
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.engine import ExecutionEngine
from cloudops_prefect.models import PlanExecutionResult
from cloudops_prefect.naming import api_credentials

if TYPE_CHECKING:
    from cloudops_prefect.models import (
        ExecutionEvent,
        ExecutionPlan,
        ExecutionRequest,
        ExecutionResult,
    )


async def run_plan(plan: "ExecutionPlan", *, json: bool, quiet: bool) -> int:
    """Runs a plan to its end; returns the exit code."""
    names = command_names(plan, api_credentials())
    lines = PlanLines({r.id: name for r, name in zip(plan.commands, names, strict=True)})
    show = _nothing if json or quiet else lines.show
    with interruptible() as interruption:
        async with ExecutionEngine(ExecutionConfig.load()) as engine:
            result = await follow(engine, engine.execute_plan(plan), show, interruption)
            ui_url = engine.ui_url(result.execution_id)
    _print_plan(result, names, ui_url, json=json)
    return exit_codes.of_status(result.status, interruption.signal_number)


async def run_command(request: "ExecutionRequest", *, json: bool, quiet: bool) -> int:
    """Runs one command to its end; returns the command's own exit code."""
    show = _nothing if json else CommandLines().show
    with interruptible() as interruption:
        async with ExecutionEngine(ExecutionConfig.load()) as engine:
            result = await follow(engine, engine.execute(request), show, interruption)
            ui_url = engine.ui_url(result.execution_id)
    assert not isinstance(result, PlanExecutionResult)  # noqa: S101
    _print_command(result, ui_url, json=json, quiet=quiet)
    return exit_codes.of_command(result, interruption.signal_number)


async def resume(id_text: str, *, json: bool, quiet: bool) -> int:
    """Runs what has not completed of an earlier execution; returns the exit code."""
    execution_id = await resolve(id_text)
    known = await names_of_run(execution_id)
    show = _nothing if json or quiet else PlanLines(known).show
    with interruptible() as interruption:
        async with ExecutionEngine(ExecutionConfig.load()) as engine:
            again = _resumed(engine.resume(execution_id), execution_id)
            result = await follow(engine, again, show, interruption)
            ui_url = engine.ui_url(result.execution_id)
    if isinstance(result, PlanExecutionResult):
        names = [known.get(one.id, str(one.id)) for one in result.results]
        _print_plan(result, names, ui_url, json=json)
        return exit_codes.of_status(result.status, interruption.signal_number)
    _print_command(result, ui_url, json=json, quiet=quiet)
    return exit_codes.of_command(result, interruption.signal_number)


async def _resumed(resumption: Awaitable[UUID | None], execution_id: UUID) -> UUID:
    return await resumption or execution_id


def _print_plan(
    result: "ExecutionResult | PlanExecutionResult", names: list[str], ui_url: str, *, json: bool
) -> None:
    assert isinstance(result, PlanExecutionResult)  # noqa: S101
    if json:
        printing.json_document(result)
        return
    printing.plan_summary(result, names)
    printing.line(f"UI: {ui_url}")


def _print_command(result: "ExecutionResult", ui_url: str, *, json: bool, quiet: bool) -> None:
    if json:
        printing.json_document(result)
    elif not quiet:
        if result.error:
            printing.error_line(f"{result.status.value}: {result.error}")
        printing.error_line(f"UI: {ui_url}")


def _nothing(event: "ExecutionEvent") -> None:
    """Shows nothing, for those who want the result only."""
