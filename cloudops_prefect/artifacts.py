"""What a plan's run shows in the Prefect UI: how far it is, and how each command ended."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

from cloudops_prefect.delivery import until_delivered
from cloudops_prefect.naming import shown_description, shown_name
from cloudops_prefect.unforeseen_errors import is_unforeseen
from cloudops_prefect.unicode_text import path_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence, Sized
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.models import ExecutionPlan, ExecutionResult

PROGRESS_KEY = "cloudops-progress"
RESULTS_KEY = "cloudops-results"
PROGRESS_INTERVAL_SECONDS = 1.0
"""Seconds between two updates of the progress."""
UPDATE_TIMEOUT_SECONDS = 20.0
"""Seconds for which an answer is waited for whatever happens."""

logger = logging.getLogger("cloudops_prefect.artifacts")


class PlanProgress:
    """A progress artifact that follows how many of a plan's commands have ended."""

    def __init__(self, client: PrefectClient, flow_run_id: UUID, ended: Sized, total: int) -> None:
        self._client = client
        self._flow_run_id = flow_run_id
        self._ended = ended
        self._total = total
        self._shown = -1
        self._artifact_id: UUID | None = None

    @asynccontextmanager
    async def followed(self) -> AsyncGenerator[None]:
        """Shows the progress from time to time while the plan runs inside."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            yield
            tasks.cancel_scope.cancel()

    async def _follow(self) -> None:
        # A plan that is over sooner has no use for an artifact that says that nothing has ended.
        try:
            while True:
                await anyio.sleep(PROGRESS_INTERVAL_SECONDS)
                await self.show()
        except BaseException as error:
            # The commands go on; the last `show` fails again, which is reported.
            if not is_unforeseen(error):
                raise
            logger.exception("The progress can't be shown")

    async def show(self) -> None:
        """Shows where the plan has come to."""
        if (ended := len(self._ended)) == self._shown:
            return
        percent = 100 * ended / self._total
        if self._artifact_id is None:
            await until_delivered(partial(self._create, percent))
        else:
            update = ArtifactUpdate(data=percent)
            await until_delivered(partial(self._client.update_artifact, self._artifact_id, update))
        self._shown = ended

    async def _create(self, percent: float) -> None:
        artifact = ArtifactCreate(
            key=PROGRESS_KEY,
            type="progress",
            description=f"How many of the {self._total} commands have ended",
            data=percent,
            flow_run_id=self._flow_run_id,
        )
        # Cancelled in the middle of the request, the artifact might be made twice.
        with anyio.fail_after(UPDATE_TIMEOUT_SECONDS, shield=True):
            self._artifact_id = (await self._client.create_artifact(artifact)).id


def results_table(
    plan: ExecutionPlan,
    flow_run_id: UUID,
    results: Sequence[ExecutionResult],
    config: ExecutionConfig,
) -> ArtifactCreate:
    """Makes the table of a plan's commands and how each ended."""
    rows = [
        {
            "command": shown_name(request, config),
            "status": result.status,
            "exit code": "" if result.exit_code is None else result.exit_code,
            "duration": f"{result.duration.total_seconds():.3f} s" if result.started_at else "",
            "log": "" if result.log_path is None else path_text(result.log_path),
        }
        for request, result in zip(plan.commands, results, strict=True)
    ]
    if any(result.leftovers for result in results):
        for row, result in zip(rows, results, strict=True):
            row["stopped in the background"] = ", ".join(result.leftovers)
    return ArtifactCreate(
        key=RESULTS_KEY,
        type="table",
        description=shown_description(plan, config) or "How the plan's commands ended",
        data=json.dumps(rows),
        flow_run_id=flow_run_id,
    )
