"""What all runs of one event loop share: configuration, limit of commands, publisher."""

from __future__ import annotations

import logging
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from prefect.context import AsyncClientContext

from cloudops_prefect.busy_api import ask_again_soon
from cloudops_prefect.cancellation import watch_cancellation
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.control import RunControl
from cloudops_prefect.line import Line
from cloudops_prefect.publishing import Publisher
from cloudops_prefect.stranded import watch_stranded
from cloudops_prefect.tag_limits import TagLimits
from cloudops_prefect.task_run_ledger import TaskRunLedger
from cloudops_prefect.unforeseen_errors import is_unforeseen

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State

    from cloudops_prefect.plan_run import PlanRun

RESTART_INTERVAL_SECONDS = 1.0

logger = logging.getLogger("cloudops_prefect.services")


@dataclass(frozen=True, slots=True)
class Services:
    """What all runs of one event loop share.

    Attributes:
        controls: What stops each run that has not ended.
        driven: The runs that an engine of this process runs.
        runs: What has been started, by the id of its flow run.
        task_runs: The task runs that have ended, which the API may not know yet.
        slots: One token for each command that may run.
        tag_limits: The limits of the tags that commands have.
        line: The order in which the runs may ask for the first of them.
        unreported: The final states that could not be reported, by the ids of their flow runs.
        pools: The work pools whose runs are asked for.
        local_deployments: The deployments of this process's runs, by the name of their flow.
    """

    config: ExecutionConfig
    client: PrefectClient
    publisher: Publisher
    task_runs: TaskRunLedger
    slots: anyio.CapacityLimiter
    tag_limits: TagLimits
    line: Line = field(default_factory=Line)
    busy: anyio.Event = field(default_factory=anyio.Event)
    controls: dict[UUID, RunControl] = field(default_factory=dict)
    runs: dict[UUID, PlanRun] = field(default_factory=dict)
    driven: set[UUID] = field(default_factory=set)
    unreported: dict[UUID, State[Any]] = field(default_factory=dict)
    pools: set[str] = field(default_factory=set)
    local_deployments: dict[str, UUID] = field(default_factory=dict)

    def control(self, flow_run_id: UUID) -> RunControl:
        """Returns what stops a run, the same one each time."""
        self.busy.set()
        return self.controls.setdefault(flow_run_id, RunControl())


_current: ContextVar[Services | None] = ContextVar("cloudops_services", default=None)


@asynccontextmanager
async def open_services(config: ExecutionConfig, client: PrefectClient) -> AsyncGenerator[Services]:
    """Opens the services for the runs that are started inside, and closes them afterwards."""
    ask_again_soon(client)
    task_runs = TaskRunLedger(client)
    async with aclosing(task_runs.events), anyio.create_task_group() as tasks:
        publisher = Publisher(client)
        slots = anyio.CapacityLimiter(config.max_concurrent_executions)
        services = Services(config, client, publisher, task_runs, slots, TagLimits(client))
        tasks.start_soon(_keep_going, publisher.run, publisher.give_up)
        tasks.start_soon(_keep_going, task_runs.events.run, task_runs.events.give_up)
        for watch in (
            task_runs.run,
            partial(watch_cancellation, client, services.controls, services.busy),
            partial(watch_stranded, client, services.pools),
        ):
            tasks.start_soon(_keep_going, watch)
        token = _current.set(services)
        try:
            yield services
        finally:
            _current.reset(token)
            tasks.cancel_scope.cancel()


async def _keep_going(
    serve: Callable[[], Awaitable[object]], give_up: Callable[[BaseException], None] | None = None
) -> None:
    """Start a service again when something unforeseen has ended it: the runs rely on it.

    Args:
        serve: The service; it goes on until its task is cancelled.
        give_up: Is called with the error, to let go of those who wait for the service.
    """
    while True:
        try:
            await serve()
        except BaseException as error:
            if not is_unforeseen(error):
                raise
            logger.exception("%r has failed and is started again", serve)
            if give_up is not None:
                give_up(error)
        await anyio.sleep(RESTART_INTERVAL_SECONDS)


def open_here() -> Services | None:
    """Returns the services that are open where this is called."""
    return _current.get()


@asynccontextmanager
async def current_services(config: ExecutionConfig | None = None) -> AsyncGenerator[Services]:
    """Gives the services that are open, or opens some for the time being.

    A flow that a worker runs, or that is called like any Prefect flow, has no engine around it.
    """
    if (services := open_here()) is not None:
        yield services
        return
    async with (
        AsyncClientContext.get_or_create() as context,
        open_services(config or ExecutionConfig(), context.client) as services,
    ):
        yield services
        await services.task_runs.report_lost()
