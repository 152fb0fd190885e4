"""Plans as Prefect deployments: run on schedule, from the UI, and by name."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.exceptions import ObjectNotFound
from prefect.types import BANNED_CHARACTERS
from prefect.utilities.callables import parameter_schema

from cloudops_prefect.api_errors import api
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.deployment_warnings import find_warnings
from cloudops_prefect.errors import ValidationError
from cloudops_prefect.flows import run_plan
from cloudops_prefect.local_api import prefect_command
from cloudops_prefect.naming import LOCAL, RUN_PLAN, metadata_tags, shown_description
from cloudops_prefect.plan_store import stored_parameters
from cloudops_prefect.schedules import make_schedule

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import WorkPool

    from cloudops_prefect.models import ExecutionPlan

logger = logging.getLogger("cloudops_prefect.deployments")

# By module, not by path: workers need the installed package, and no copy of a directory.
ENTRYPOINT = "cloudops_prefect.flows.run_plan"


async def deploy_plan(  # noqa: PLR0913
    plan: ExecutionPlan,
    *,
    name: str,
    work_pool: str,
    cron: str | None = None,
    interval: timedelta | str | float | None = None,
    rrule: str | None = None,
    timezone: str | None = None,
    concurrency_limit: int | None = None,
    paused: bool = False,
    config: ExecutionConfig | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> UUID:
    """Makes a plan the deployment `run-plan/NAME`, or changes the deployment that is there.

    What is not given is taken back: without a schedule, a deployment that had one has none.

    Args:
        plan: What every run of the deployment runs.
        name: The deployment's name.
        work_pool: The pool whose workers run it.
        cron: A cron expression of five fields, like `0 3 * * *`, or a name like `@daily`.
        interval: The time from one run to the next; a duration, or a number of seconds.
        rrule: A recurrence rule of RFC 5545, like `FREQ=WEEKLY;BYDAY=MO`.
        timezone: The IANA name, like Europe/Berlin, of the schedule's timezone; UTC if absent.
        concurrency_limit: How many runs may be under way at once; the others wait.
        paused: Whether the schedule rests until somebody resumes the deployment.
        config: The plan is checked against it, from the environment if absent; a settings block has
            one as `block.config()`. The workers have their own.
        warn: Takes each warning about what a worker would do in another way than expected; logs
            it if absent.

    Returns:
        The deployment's id.

    Raises:
        ValidationError: The plan, the schedule, the name or the limit is refused, or there is no
            such pool; nothing has been changed.
        ExecutionIOError: The API doesn't answer, or refuses.
    """
    config = config or ExecutionConfig.load()
    plan.validate(config)
    _check_name(name)
    if concurrency_limit is not None and concurrency_limit < 1:
        raise ValidationError(f"a concurrency limit must be above 0, not {concurrency_limit}")
    schedule = await make_schedule(cron=cron, interval=interval, rrule=rrule, timezone=timezone)
    fields: dict[str, Any] = {
        "name": name,
        "work_pool_name": work_pool,
        "description": shown_description(plan, config) or run_plan.description,
        # Not the plan's id: runs that are only scheduled would be taken for its newest execution.
        "tags": metadata_tags(plan.metadata),
        "schedules": [DeploymentScheduleCreate(schedule=schedule)] if schedule else [],
        "concurrency_limit": concurrency_limit,
        "paused": paused,
    }
    async with api() as client:
        pool = await _read_work_pool(client, work_pool)
        fields["parameters"] = await stored_parameters(client, plan)
        deployment_id = await _create(client, fields)
    for warning in find_warnings(plan, pool, config):
        warn(warning)
    return deployment_id


async def _create(client: PrefectClient, fields: dict[str, Any]) -> UUID:
    flow_id = await client.create_flow_from_name(RUN_PLAN)
    # One request: it replaces the schedules and the limit of a deployment that is there.
    return await client.create_deployment(
        flow_id,
        entrypoint=ENTRYPOINT,
        pull_steps=[],
        parameter_openapi_schema=parameter_schema(run_plan).model_dump(),
        enforce_parameter_schema=True,
        **fields,
    )


async def _read_work_pool(client: PrefectClient, name: str) -> WorkPool:
    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        pools = ", ".join(sorted(pool.name for pool in await client.read_work_pools()))
        kind = ["--type", "process"]
        # What follows `--` is no option, even if it begins with a dash.
        words = [*kind, "--", name] if name.startswith("-") else [name, *kind]
        make = f"`{prefect_command('work-pool', 'create', *words)}` creates it"
        known = f"there is {pools}, and {make}" if pools else make
        raise ValidationError(f"there is no work pool {name!r}; {known}", "work_pool") from None


def _check_name(name: str) -> None:
    if not name.strip():
        raise ValidationError("a deployment needs a name", "name")
    if name == LOCAL:
        raise ValidationError(f"the name {name!r} belongs to the runs of engines", "name")
    if banned := [letter for letter in BANNED_CHARACTERS if letter in name]:
        raise ValidationError(f"a deployment's name can't have {' '.join(banned)!r}", "name")
