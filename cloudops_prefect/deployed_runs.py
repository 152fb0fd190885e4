"""Runs of deployments, which workers run: created, given back, cancelled before one came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prefect.client.schemas.objects import StateType, WorkerStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelling, Scheduled

from cloudops_prefect.errors import ExecutionError, ValidationError
from cloudops_prefect.local_api import prefect_command
from cloudops_prefect.naming import LOCAL, RUN_COMMAND, RUN_PLAN
from cloudops_prefect.states import cancelled_state

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from cloudops_prefect.services import Services
    from cloudops_prefect.work import Work

_NOT_BEGUN = {StateType.SCHEDULED, StateType.PENDING, StateType.PAUSED}


@dataclass(frozen=True, slots=True)
class Deployments:
    """The deployments that an engine creates runs of, each named as `FLOW/DEPLOYMENT`.

    Attributes:
        command: The deployment that runs single commands.
        plan: The deployment that runs plans.
    """

    command: str = f"{RUN_COMMAND}/{RUN_COMMAND}"
    plan: str = f"{RUN_PLAN}/{RUN_PLAN}"

    def __post_init__(self) -> None:
        for name in (self.command, self.plan):
            if not all(name.partition("/")):
                raise ValidationError(f"a deployment is named FLOW/DEPLOYMENT, not {name!r}")

    def name_for(self, work: Work) -> str:
        """Returns the name of the deployment that runs it."""
        return self.plan if work.flow_name == RUN_PLAN else self.command


async def create_run(
    services: Services, deployments: Deployments, work: Work, idempotency_key: str | None
) -> FlowRun:
    """Creates a run that a worker takes.

    Raises:
        ExecutionError: if there is no such deployment.
    """
    deployment_id = await _deployment(services.client, deployments.name_for(work))
    flow_run = await work.create_run(services, deployment_id, Scheduled(), idempotency_key)
    look_after(services, flow_run)
    return flow_run


def look_after(services: Services, flow_run: FlowRun) -> None:
    """Lets no run of its work pool stay with a worker that has died."""
    if flow_run.work_pool_name is not None:
        services.pools.add(flow_run.work_pool_name)


async def _deployment(client: PrefectClient, name: str) -> UUID:
    try:
        return (await client.read_deployment_by_name(name)).id
    except ObjectNotFound:
        command = prefect_command("deploy", "--all")
        raise ExecutionError(
            f"there is no deployment {name!r}; in a clone `{command}` creates those of this package"
        ) from None


async def is_for_workers(client: PrefectClient, flow_run: FlowRun) -> bool:
    """Whether a run belongs to a deployment that others run, and not an engine in its process."""
    if flow_run.deployment_id is None:
        return False
    try:
        return (await client.read_deployment(flow_run.deployment_id)).name != LOCAL
    except ObjectNotFound:
        return False


def is_overdue(flow_run: FlowRun) -> bool:
    """Whether a run should have begun by now.

    An engine's own run never should: it begins as pending, and is due later when it retries. Such
    a run was scheduled again by somebody who does not run it.
    """
    state = flow_run.state
    if state is None or state.type is not StateType.SCHEDULED:
        return False
    due = state.state_details.scheduled_time
    return due is None or due <= datetime.now(UTC)


async def retry_run(services: Services, flow_run_id: UUID) -> None:
    """Gives a run that has ended back to the workers, as the UI's Retry does."""
    await services.client.set_flow_run_state(flow_run_id, AwaitingRetry(), force=True)


async def cancel_run(services: Services, flow_run: FlowRun) -> None:
    """Asks whoever runs it to stop; a run that nobody has taken is cancelled with that."""
    client = services.client
    begun = flow_run.state_type not in _NOT_BEGUN
    if begun or not await is_for_workers(client, flow_run):
        await client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
        return
    # Of a process that is being started nobody may know yet: in Cancelling the run would stay for
    # minutes. The flow looks whether its run was cancelled before it began.
    told = await client.set_flow_run_state(flow_run.id, cancelled_state(), force=True)
    now = await client.read_flow_run(flow_run.id)
    # It had begun meanwhile, and has ended only once its processes are gone.
    if now.run_count > flow_run.run_count and told.state and now.state_id == told.state.id:
        await client.set_flow_run_state(flow_run.id, Cancelling(), force=True)


async def what_it_waits_for(client: PrefectClient, flow_run: FlowRun) -> str:
    """Says of a run that has not ended why that may be."""
    if flow_run.state_type not in _NOT_BEGUN:
        return "it is still running"
    if flow_run.work_pool_name is None:
        if is_overdue(flow_run) and not await is_for_workers(client, flow_run):
            return "it was scheduled again, which no worker takes; to run it here, resume it"
        return "it is still pending and waits for its turn"
    pool = repr(flow_run.work_pool_name)
    online = await _workers_online(client, flow_run.work_pool_name)
    if flow_run.state_type is StateType.PENDING:
        return f"it is still pending: a worker of the work pool {pool} has it and has not begun"
    there = f"{online} of them online" if online else "of which none is online"
    return f"it is still pending and waits for a worker of the work pool {pool}, {there}"


async def _workers_online(client: PrefectClient, pool: str) -> int:
    workers = await client.read_workers_for_work_pool(pool)
    return sum(worker.status is WorkerStatus.ONLINE for worker in workers)
