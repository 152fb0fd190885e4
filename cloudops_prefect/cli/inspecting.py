"""Executions looked at, whoever runs them."""

from typing import Any

from cloudops_prefect.api_errors import api
from cloudops_prefect.cli import printing, summary
from cloudops_prefect.cli.api import resolve, ui_url
from cloudops_prefect.cli.arguments import ShownOptions
from cloudops_prefect.cli.following import reason_of_failure
from cloudops_prefect.cli.names import command_names
from cloudops_prefect.cli.run_facts import execution_of, item_of
from cloudops_prefect.cli.showing import Showing
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.dead_runs import tell_crashes
from cloudops_prefect.engine import ExecutionEngine
from cloudops_prefect.errors import ExecutionNotCompletedError
from cloudops_prefect.execution_list import read_list
from cloudops_prefect.kept_logs import blocks_of, log_parts, text_of
from cloudops_prefect.models import ExecutionStatus, PlanExecutionResult
from cloudops_prefect.naming import api_credentials

_NONE_LIKE_THAT = "No execution is like that"
_NONE_YET = "Nothing has run yet: `cloudops init` writes a plan, `cloudops run plan.yaml` runs it"


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
    execution = await execution_of(await resolve(id_text))
    async with ExecutionEngine(ExecutionConfig.load()) as engine:
        status = await engine.get_status(execution.id)
        if not status.is_final:
            raise ExecutionNotCompletedError(execution.id, status)
        result = await engine.wait(execution.id)
        reason = await reason_of_failure(engine, result)
    if json:
        printing.json_document(result)
        return 0
    if isinstance(result, PlanExecutionResult):
        assert execution.plan is not None  # noqa: S101 (its result is one of a plan)
        names = command_names(execution.plan, api_credentials())
        summary.plan_summary(result, names, reason)
    else:
        summary.command_summary(result)
    printing.line(f"UI: {ui_url(execution.id, in_plan=execution.index is not None)}")
    return 0


async def print_logs(id_text: str, *, json: bool) -> int:
    """Prints what an execution has printed so far."""
    execution = await execution_of(await resolve(id_text))
    async with api() as client:
        parts = await log_parts(client, ExecutionConfig.load(), execution)
    if json:
        printing.json_document({"id": execution.id, "logs": text_of(parts)})
        return 0
    end = b"\n"
    for block in blocks_of(parts):
        printing.content(block)
        end = block[-1:]
    if end != b"\n":
        printing.line("")
    return 0


async def follow_logs(id_text: str, *, json: bool) -> int:
    """Prints what an execution prints, from its first line, until it ends."""
    execution = await execution_of(await resolve(id_text))
    as_lines = Showing(item_of(execution), ShownOptions(output="interleaved"))
    view = as_lines.view
    async with ExecutionEngine(ExecutionConfig.load()) as engine:
        if json:
            async for event in engine.stream(execution.id):
                printing.line(event.model_dump_json())
            return 0
        async with view.drawn():
            async for event in engine.stream(execution.id, unfinished_lines=True):
                view.show(event)
    return 0


async def print_list(filters: dict[str, Any], *, page: int, json: bool) -> int:
    """Prints a page of executions, the newest first; `filters` are those of `read_list`."""
    limit: int = filters["limit"]
    one_more: dict[str, Any] = {**filters, "limit": limit + 1}
    async with api() as client:
        await tell_crashes(client, ExecutionConfig.load())
        found = await read_list(client, **one_more)
    summaries, more = found[:limit], len(found) > limit
    if json:
        printing.json_document(summaries)
    elif summaries:
        printing.executions(summaries)
    else:
        narrowed = any(filters[name] for name in filters if name != "limit")
        printing.error_line(_NONE_LIKE_THAT if narrowed else _NONE_YET)
    if more:
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
