"""By what a run is found and read at the API, whoever has started it: name, tags, its plan."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cloudops_prefect.delivery import until_delivered
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.naming import is_made_up, run_name, tags_of
from cloudops_prefect.parameters import has_plan
from cloudops_prefect.plan_store import store_for_run

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
    name = flow_run.name
    if is_made_up(name):
        name = run_name(item, services.config)
    tags = tags_of(item.id, item.metadata)
    if name == flow_run.name and set(tags) <= set(flow_run.tags):
        return
    both = list(dict.fromkeys([*flow_run.tags, *tags]))
    await until_delivered(
        partial(services.client.update_flow_run, flow_run.id, name=name, tags=both)
    )
