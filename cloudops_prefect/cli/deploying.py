"""Plans made deployments."""

from typing import TYPE_CHECKING, Any

from prefect.utilities.urls import url_for

from cloudops_prefect.api_errors import api
from cloudops_prefect.cli import exit_codes, notes, printing
from cloudops_prefect.cli.names import command_names
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.deployments import deploy_plan
from cloudops_prefect.naming import RUN_PLAN, api_credentials

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
    name = f"{RUN_PLAN}/{options['name']}"
    ui = url_for("deployment", obj_id=deployment_id) or ""
    if json:
        printing.json_document({"id": deployment_id, "name": name, "ui": ui})
        return exit_codes.COMPLETED
    printing.line(f"Deployed {name}")
    if (schedule := _schedule(**options)) is not None:
        printing.line(f"Schedule:       {schedule}")
    if local_api is not None:
        printing.line(f"Before both:    export PREFECT_API_URL={local_api}")
    printing.line(f"Run it now:     prefect deployment run {name}")
    printing.line(f"Start a worker: prefect worker start --pool {options['work_pool']}")
    printing.line(f"UI: {ui}")
    return exit_codes.COMPLETED


def _schedule(
    *,
    cron: str | None,
    interval: str | None,
    rrule: str | None,
    timezone: str | None,
    paused: bool,
    **_: Any,
) -> str | None:
    when = cron or rrule or (interval and f"every {interval}")
    if not when:
        return None
    return f"{when} {timezone or 'UTC'}{' (paused)' if paused else ''}"


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
