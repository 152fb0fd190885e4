"""Plans made deployments."""

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cloudops_prefect.api_errors import api
from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.deployments import deploy_plan
from cloudops_prefect.local_api import SET_ADDRESS, needs_address, ui_url
from cloudops_prefect.naming import RUN_PLAN
from cloudops_prefect.schedules import DEFAULT_TIMEZONE, next_runs
from cloudops_prefect.shell_words import command_line, option

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionPlan


async def deploy(
    plan: "ExecutionPlan", file_warnings: list[str], *, json: bool, **options: Any
) -> int:
    """Makes a plan a deployment, and prints where it is and how it is run.

    Args:
        plan: What it runs.
        file_warnings: What the plan's file may not mean as it is written.
        json: Whether that is printed as JSON.
        options: Those of `deploy_plan`.
    """
    warnings = [*file_warnings]
    deployment_id = await deploy_plan(plan, warn=warnings.append, **options)
    for warning in warnings:
        printing.error_line(f"warning: {warning}")
    runs = await _next_runs(deployment_id)
    name = f"{RUN_PLAN}/{options['name']}"
    ui = ui_url("deployment", deployment_id)
    if json:
        made = {"id": deployment_id, "name": name, "ui": ui, "paused": options["paused"]}
        made |= {"schedule": _schedule(**options), "next_runs": runs, "warnings": warnings}
        printing.json_document(made)
        return exit_codes.COMPLETED
    printing.line(f"Deployed {name}")
    _print_schedule(_schedule(**options), runs, paused=options["paused"])
    if needs_address():
        printing.line(f"Before both:    {SET_ADDRESS}")
    run = command_line("prefect", "deployment", "run", name)
    worker = command_line("prefect", "worker", "start", *option("--pool", options["work_pool"]))
    printing.line(f"Run it now:     {run}")
    printing.line(f"Start a worker: {worker}")
    printing.line(f"UI: {ui}")
    return exit_codes.COMPLETED


async def _next_runs(deployment_id: UUID) -> list[datetime]:
    async with api() as client:
        schedules = (await client.read_deployment(deployment_id)).schedules
    return await next_runs(schedules[0].schedule) if schedules else []


def _schedule(
    *, cron: str | None, interval: str | None, rrule: str | None, timezone: str | None, **_: Any
) -> dict[str, str] | None:
    """Return the schedule as it was typed; None if there is none."""
    given = {"cron": cron, "interval": interval, "rrule": rrule}
    typed = {kind: value for kind, value in given.items() if value is not None}
    return typed | {"timezone": timezone or DEFAULT_TIMEZONE} if typed else None


def _print_schedule(schedule: dict[str, str] | None, runs: list[datetime], *, paused: bool) -> None:
    if schedule is None:
        return
    (kind, value), (_, timezone) = schedule.items()
    when = f"every {value}" if kind == "interval" else value
    printing.line(f"Schedule:       {when} {timezone}{' (paused)' if paused else ''}")
    label = "Once resumed:" if paused else "Next runs:"
    for run in runs:
        printing.line(f"{label:<15} {_moment(run)} {timezone}")
        label = ""


def _moment(run: datetime) -> str:
    offset = run.isoformat()[-len("+00:00") :]
    return f"{run:%a %Y-%m-%d %H:%M:%S} {offset}"
