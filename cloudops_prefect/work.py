"""What an engine is given to run, and the run of a deployment that it becomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudops_prefect.compilation import compile_command, compile_plan
from cloudops_prefect.models import ExecutionPlan, ExecutionRequest
from cloudops_prefect.naming import RUN_COMMAND, RUN_PLAN, run_name, tags_of
from cloudops_prefect.plan_store import stored_parameters
from cloudops_prefect.run_origin import RunOrigin

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

    from cloudops_prefect.services import Services


@dataclass(frozen=True, slots=True)
class Work:
    """A plan or a single request, its flow, and where it is started."""

    item: ExecutionPlan | ExecutionRequest
    origin: RunOrigin = field(default_factory=RunOrigin)

    @property
    def requests(self) -> list[ExecutionRequest]:
        """The commands."""
        return self.item.commands if isinstance(self.item, ExecutionPlan) else [self.item]

    @property
    def flow_name(self) -> str:
        """The flow that runs it when it is deployed."""
        return RUN_PLAN if isinstance(self.item, ExecutionPlan) else RUN_COMMAND

    def compiled(self, services: Services) -> Flow[[], Any]:
        """Returns the flow that runs it here."""
        if isinstance(self.item, ExecutionPlan):
            flow = compile_plan(self.item, services.config)
        else:
            flow = compile_command(self.item, services.config)
        # Prefect's setting for flows that say nothing: an execution ends once.
        flow.retries = 0
        return flow

    async def create_run(
        self,
        services: Services,
        deployment_id: UUID,
        state: State[Any],
        idempotency_key: str | None,
    ) -> FlowRun:
        """Creates its run at the API, or gives the one that the key has created before."""
        return await services.client.create_flow_run_from_deployment(
            deployment_id,
            parameters=await stored_parameters(services.client, self.item),
            state=state,
            name=run_name(self.item, services.config),
            tags=tags_of(self.item.id, self.item.metadata),
            idempotency_key=idempotency_key,
            labels={**self.origin.labels()},
        )
