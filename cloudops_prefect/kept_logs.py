"""The logs of executions: from their files where those are here, else what the API has of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from cloudops_prefect.api_logs import read_by_command, read_whole
from cloudops_prefect.history import newest_attempt
from cloudops_prefect.plan_run import task_run_id
from cloudops_prefect.records import RecordReader

if TYPE_CHECKING:
    from uuid import UUID

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.history import Execution
    from cloudops_prefect.services import Services


async def read_log(services: Services, execution: Execution) -> str:
    """Reads what an execution has printed; a plan's commands one after the other.

    A command that was tried more than once is read as it ran last.
    """
    plan = execution.plan
    if execution.index is not None:
        return await _read_command(services, execution)
    if plan is None and (text := await _read_file(services.config, execution.id)) is not None:
        return text
    count = 1 if plan is None else len(plan.commands)
    return "".join(await _read_commands(services, execution, count))


async def _read_command(services: Services, execution: Execution) -> str:
    if (text := await _read_file(services.config, execution.id)) is not None:
        return text
    return await read_whole(services.client, execution.flow_run.id, execution.id)


async def _read_commands(services: Services, execution: Execution, count: int) -> list[str]:
    tries = [_tries(execution, index) for index in range(count)]
    texts = [await _newest_file(services.config, ids) for ids in tries]
    if None not in texts:
        return [text or "" for text in texts]
    kept = await _read_api(services, execution)
    return [
        next((kept[one] for one in ids if one in kept), "") if text is None else text
        for text, ids in zip(texts, tries, strict=True)
    ]


def _tries(execution: Execution, index: int) -> list[UUID]:
    """Returns the task runs of a command, the newest first."""
    flow_run = execution.flow_run
    attempts = range(newest_attempt(flow_run), 0, -1)
    return [task_run_id(flow_run.id, attempt, index) for attempt in attempts]


async def _read_api(services: Services, execution: Execution) -> dict[UUID, str]:
    flow_run_id = execution.flow_run.id
    # Before the logs: of what has a result, they are complete.
    records = await RecordReader(flow_run_id).read(services.client)
    ended = {task_run_id(flow_run_id, one.attempt, one.index) for one in records}
    texts = await read_by_command(services.client, flow_run_id)
    for printing in texts.keys() - ended:
        texts[printing] = await read_whole(services.client, flow_run_id, printing)
    return texts


async def _newest_file(config: ExecutionConfig, tries: list[UUID]) -> str | None:
    for execution_id in tries:
        if (text := await _read_file(config, execution_id)) is not None:
            return text
    return None


async def _read_file(config: ExecutionConfig, execution_id: UUID) -> str | None:
    path = anyio.Path(config.log_path(execution_id))
    try:
        return await path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
