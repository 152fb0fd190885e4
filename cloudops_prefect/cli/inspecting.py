"""Executions looked at, whoever runs them."""

import sys
from typing import TYPE_CHECKING, Any

from cloudops_prefect import history
from cloudops_prefect.cli import printing, summary
from cloudops_prefect.cli.api import api, resolve
from cloudops_prefect.cli.event_lines import CommandLines, PlanLines
from cloudops_prefect.cli.run_facts import names_of_run
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.engine import ExecutionEngine
from cloudops_prefect.errors import ExecutionNotCompletedError
from cloudops_prefect.models import ExecutionStatus, PlanExecutionResult

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionEvent


async def print_status(id_text: str, *, json: bool) -> int:
    """Prints where an execution stands."""
    execution_id = await resolve(id_text)
    async with ExecutionEngine(ExecutionConfig.load()) as engine:
        status = await engine.get_status(execution_id)
    if json:
        printing.json_document({"id": execution_id, "status": status.value})
    else:
        printing.line(status.value)
    return 0


async def print_result(id_text: str, *, json: bool) -> int:
    """Prints how an execution ended."""
    execution_id = await resolve(id_text)
    async with ExecutionEngine(ExecutionConfig.load()) as engine:
        status = await engine.get_status(execution_id)
        if not status.is_final:
            raise ExecutionNotCompletedError(execution_id, status)
        result = await engine.wait(execution_id)
        ui_url = engine.ui_url(result.execution_id)
    if json:
        printing.json_document(result)
        return 0
    if isinstance(result, PlanExecutionResult):
        names = await names_of_run(execution_id)
        summary.plan_summary(result, [names.get(r.id, str(r.id)) for r in result.results])
    else:
        summary.command_summary(result)
    printing.line(f"UI: {ui_url}")
    return 0


async def print_logs(id_text: str, *, json: bool) -> int:
    """Prints what an execution has printed so far."""
    execution_id = await resolve(id_text)
    async with ExecutionEngine(ExecutionConfig.load()) as engine:
        logs = await engine.read_logs(execution_id)
    if json:
        printing.json_document({"id": execution_id, "logs": logs})
    elif logs:
        printing.line(logs.removesuffix("\n"))
    return 0


async def follow_logs(id_text: str, *, json: bool) -> int:
    """Prints what an execution prints, from its first line, until it ends."""
    execution_id = await resolve(id_text)
    async with ExecutionEngine(ExecutionConfig.load()) as engine:
        show = _show_json if json else None
        names = {} if json else await names_of_run(execution_id)
        async for event in engine.stream(execution_id):
            if show is None:
                # A plan's events start with how far it is, or with a command that is not the plan.
                whole = event.execution_id == execution_id and event.event_type != "progress"
                show = CommandLines().show if whole else PlanLines(names).show
            show(event)
    return 0


async def print_list(filters: dict[str, Any], *, page: int, json: bool) -> int:
    """Prints a page of executions, the newest first; `filters` are those of `read_list`."""
    limit: int = filters["limit"]
    one_more: dict[str, Any] = {**filters, "limit": limit + 1}
    async with api() as client:
        found = await history.read_list(client, **one_more)
    summaries, more = found[:limit], len(found) > limit
    if json:
        printing.json_document(summaries)
    else:
        printing.executions(summaries)
    if more and sys.stdout.isatty():
        printing.error_line(f"There are more: --page {page + 1}")
    return 0


async def cancel(id_text: str, *, json: bool) -> int:
    """Asks for the end of an execution."""
    execution_id = await resolve(id_text)
    async with ExecutionEngine(ExecutionConfig.load()) as engine:
        await engine.cancel(execution_id)
        status = await engine.get_status(execution_id)
    if json:
        printing.json_document({"id": execution_id, "status": status.value})
    else:
        ended = status is ExecutionStatus.CANCELLED
        printing.line(f"{'Cancelled' if ended else 'Cancelling'} {execution_id}")
    return 0


def _show_json(event: "ExecutionEvent") -> None:
    printing.line(event.model_dump_json())
