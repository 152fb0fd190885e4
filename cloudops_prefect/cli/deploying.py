"""Plans made deployments."""

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.utilities.urls import url_for

from cloudops_prefect.api_errors import api
from cloudops_prefect.cli import exit_codes, notes, printing
from cloudops_prefect.cli.names import command_names
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.deployments import deploy_plan
from cloudops_prefect.naming import RUN_PLAN, api_credentials
from cloudops_prefect.schedules import DEFAULT_TIMEZONE, next_runs

if TYPE_CHECKING:
    from prefect.client.schemas.objects import WorkPool

    from cloudops_prefect.models import ExecutionPlan


async def deploy(
    plan: "ExecutionPlan", local_api: str | None, *, json: bool, **options: Any
) -> int:
    """Makes a plan a deployment, and prints where it is and how it is run.

    Args:
        plan: What it runs.
        local_api: The API's address, where Prefect's own commands would not find it.
        json: Whether that is printed as JSON.
        options: Those of `deploy_plan`.
    """
    deployment_id = await deploy_plan(plan, **options)
    await _note_relative_paths(plan, options["work_pool"])
    runs = await _next_runs(deployment_id)
    name = f"{RUN_PLAN}/{options['name']}"
    ui = url_for("deployment", obj_id=deployment_id) or ""
    if json:
        made = {"id": deployment_id, "name": name, "ui": ui, "paused": options["paused"]}
        printing.json_document(made | {"schedule": _schedule(**options), "next_runs": runs})
        return exit_codes.COMPLETED
    printing.line(f"Deployed {name}")
    _print_schedule(_schedule(**options), runs, paused=options["paused"])
    if local_api is not None:
        printing.line(f"Before both:    export PREFECT_API_URL={local_api}")
    printing.line(f"Run it now:     prefect deployment run {name}")
    printing.line(f"Start a worker: prefect worker start --pool {options['work_pool']}")
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


async def _note_relative_paths(plan: "ExecutionPlan", work_pool: str) -> None:
    secrets = api_credentials()
    paths = [*notes.relative_paths(plan, ExecutionConfig.load(), secrets)]
    if not paths:
        return
    async with api() as client:
        pool = await client.read_work_pool(work_pool)
    if _gives_a_temporary_directory(pool):
        notes.say(notes.in_a_temporary_directory(paths, command_names(plan, secrets)))


def _gives_a_temporary_directory(pool: "WorkPool") -> bool:
    # Those of containers start in the directory of their image.
    if pool.type != "process":
        return False
    template: dict[str, Any] = pool.base_job_template
    variable = template.get("variables", {}).get("properties", {}).get("working_dir", {})
    fixed = template.get("job_configuration", {}).get("working_dir") or ""
    return not variable.get("default") and (not fixed or "{{" in fixed)
