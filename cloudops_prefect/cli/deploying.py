"""Plans made deployments."""

from typing import TYPE_CHECKING, Any

from prefect.utilities.urls import url_for

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.deployments import deploy_plan
from cloudops_prefect.naming import RUN_PLAN

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionPlan


async def deploy(plan: "ExecutionPlan", *, json: bool, **options: Any) -> int:
    """Makes a plan a deployment, and prints where it is; `options` are those of `deploy_plan`."""
    deployment_id = await deploy_plan(plan, **options)
    name = f"{RUN_PLAN}/{options['name']}"
    ui = url_for("deployment", obj_id=deployment_id) or ""
    if json:
        printing.json_document({"id": deployment_id, "name": name, "ui": ui})
        return exit_codes.COMPLETED
    printing.line(f"Deployed {name}")
    printing.line(f"Run it now:     prefect deployment run {name}")
    printing.line(f"Start a worker: prefect worker start --pool {options['work_pool']}")
    printing.line(f"UI: {ui}")
    return exit_codes.COMPLETED
