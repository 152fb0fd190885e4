"""Plans made deployments."""

from typing import TYPE_CHECKING, Any

from prefect.utilities.urls import url_for

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.deployments import deploy_plan
from cloudops_prefect.naming import RUN_PLAN

if TYPE_CHECKING:
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
    name = f"{RUN_PLAN}/{options['name']}"
    ui = url_for("deployment", obj_id=deployment_id) or ""
    if json:
        printing.json_document({"id": deployment_id, "name": name, "ui": ui})
        return exit_codes.COMPLETED
    printing.line(f"Deployed {name}")
    if local_api is not None:
        printing.line(f"Before both:    export PREFECT_API_URL={local_api}")
    printing.line(f"Run it now:     prefect deployment run {name}")
    printing.line(f"Start a worker: prefect worker start --pool {options['work_pool']}")
    printing.line(f"UI: {ui}")
    return exit_codes.COMPLETED
