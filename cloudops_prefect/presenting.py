"""Set a flow run's name, tags, stored plan and origin, also of runs that no engine has started."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prefect.context import FlowRunContext

from cloudops_prefect.delivery import until_delivered
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.naming import run_name, tags_of
from cloudops_prefect.parameters import has_plan
from cloudops_prefect.plan_store import store_for_run
from cloudops_prefect.run_origin import RunOrigin

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from cloudops_prefect.models import ExecutionRequest
    from cloudops_prefect.services import Services


async def present(
    services: Services, flow_run: FlowRun, item: ExecutionPlan | ExecutionRequest
) -> None:
    """Gives a run that a caller, a form or a schedule started what an engine gives to its runs."""
    if flow_run.id in services.driven:
        return
    if isinstance(item, ExecutionPlan) and not has_plan(flow_run):
        await until_delivered(partial(store_for_run, services.client, flow_run.id, item))
    await _keep_origin(services, flow_run)
    name = run_name(item, services.config) if _is_unnamed(flow_run) else flow_run.name
    tags = tags_of(item.id, item.metadata)
    if name == flow_run.name and set(tags) <= set(flow_run.tags):
        return
    both = list(dict.fromkeys([*flow_run.tags, *tags]))
    await until_delivered(
        partial(services.client.update_flow_run, flow_run.id, name=name, tags=both)
    )


async def _keep_origin(services: Services, flow_run: FlowRun) -> None:
    """Label a run that this process calls with its directory, so that a resume can use it."""
    if flow_run.deployment_id is not None:
        return
    labels = RunOrigin.here().labels()
    if not labels.items() <= flow_run.labels.items():
        update = services.client.update_flow_run_labels
        await until_delivered(partial(update, flow_run.id, {**labels}))


def _is_unnamed(flow_run: FlowRun) -> bool:
    """Whether a name has the shape of those that Prefect gives: two words and a hyphen.

    The API does not say who has named a run. A flow with a `flow_run_name` has a name of its own.
    """
    context = FlowRunContext.get()
    if context is not None and context.flow is not None and context.flow.flow_run_name:
        return False
    adjective, _, animal = flow_run.name.partition("-")
    return adjective.isalpha() and animal.isalpha()
