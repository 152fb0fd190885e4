"""The logs of executions: from their files where those are here, else what the API has of them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from anyio import to_thread

from cloudops_prefect.api_logs import read_by_command, read_whole
from cloudops_prefect.history import newest_attempt
from cloudops_prefect.logfiles import is_here
from cloudops_prefect.plan_run import task_run_id
from cloudops_prefect.records import RecordReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.history import Execution
    from cloudops_prefect.services import Services

BLOCK = 1024 * 1024


async def read_log(services: Services, execution: Execution) -> str:
    """Reads what an execution has printed; the ends of lines stay what they are."""
    parts = await log_parts(services.client, services.config, execution)
    return await to_thread.run_sync(text_of, parts)


def text_of(parts: Iterable[Path | str]) -> str:
    """Reads what `log_parts` returns as one text."""
    return b"".join(blocks_of(parts)).decode(errors="replace")


def blocks_of(parts: Iterable[Path | str]) -> Iterator[bytes]:
    """Reads what `log_parts` returns in blocks, so that a large log takes no memory."""
    for part in parts:
        if isinstance(part, str):
            yield part.encode()
            continue
        # Logs may be pruned meanwhile.
        with suppress(FileNotFoundError), part.open("rb") as log:
            while block := log.read(BLOCK):
                yield block


async def log_parts(
    client: PrefectClient, config: ExecutionConfig, execution: Execution
) -> list[Path | str]:
    """Finds what an execution has printed: its log if that is here, else what the API has of it.

    A plan's commands come one after the other; one that was tried more than once as it ran last.
    """
    plan = execution.plan
    if plan is not None and execution.index is None:
        return await _parts_of_plan(client, config, execution, len(plan.commands))
    path = config.log_path(execution.id)
    if is_here(path):
        return [path]
    if execution.index is not None:
        return [await read_whole(client, execution.flow_run.id, execution.id)]
    return await _parts_of_plan(client, config, execution, 1)


async def _parts_of_plan(
    client: PrefectClient, config: ExecutionConfig, execution: Execution, count: int
) -> list[Path | str]:
    tries = [_tries(execution, index) for index in range(count)]
    paths = [next(filter(is_here, map(config.log_path, ids)), None) for ids in tries]
    kept = await _read_api(client, execution.flow_run.id) if None in paths else {}
    return [
        path or next((kept[one] for one in ids if one in kept), "")
        for path, ids in zip(paths, tries, strict=True)
    ]


def _tries(execution: Execution, index: int) -> list[UUID]:
    """Returns the task runs of a command, the newest first."""
    flow_run = execution.flow_run
    attempts = range(newest_attempt(flow_run), 0, -1)
    return [task_run_id(flow_run.id, attempt, index) for attempt in attempts]


async def _read_api(client: PrefectClient, flow_run_id: UUID) -> dict[UUID, str]:
    # Before the logs: of what has a result, they are complete.
    records = await RecordReader(flow_run_id).read(client)
    ended = {task_run_id(flow_run_id, one.attempt, one.index) for one in records}
    texts = await read_by_command(client, flow_run_id)
    for printing in texts.keys() - ended:
        texts[printing] = await read_whole(client, flow_run_id, printing)
    return texts
