"""What commands have printed, as the API keeps it.

Prefect's page by offset, in the order of time, is no way to follow a run: records of several
commands, and Prefect's own, arrive late. Within one command's the publisher sees to it that times
only grow, so that what comes after a time has not been read before and nothing is left out.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prefect.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
    LogFilterTaskRunId,
    LogFilterTimestamp,
)
from prefect.client.schemas.sorting import LogSort

from cloudops_prefect.journal import STREAMS
from cloudops_prefect.output_feed import PREFIX, UNFINISHED_PREFIX

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Log

    from cloudops_prefect.journal import Stream

LOG_PAGE_SIZE = 100


class LogReader:
    """Reads the records of one command's output as they come, in their order, each of them once.

    Args:
        flow_run_id: The run.
        task_run_id: The command.
        unfinished: Whether to return records of unfinished lines, too.
    """

    def __init__(self, flow_run_id: UUID, task_run_id: UUID, *, unfinished: bool = False) -> None:
        self._unfinished = unfinished
        self._wanted = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]),
            task_run_id=LogFilterTaskRunId(any_=[task_run_id]),
            # Prefect's own record of a failure.
            level=LogFilterLevel(le_=logging.WARNING),
        )
        self._last: datetime | None = None

    async def read(self, client: PrefectClient) -> list[Log]:
        """Returns a page of what has come since the last time, nothing if it is all read."""
        new: list[Log] = []
        is_last = False
        # A long progress bar fills pages with nothing but records of unfinished lines.
        while not new and not is_last:
            page = await client.read_logs(
                self._wanted, limit=LOG_PAGE_SIZE, sort=LogSort.TIMESTAMP_ASC
            )
            new = [log for log in self._news(page) if self._unfinished or _is_output(log)]
            is_last = len(page) < LOG_PAGE_SIZE
        return new

    def _news(self, page: list[Log]) -> list[Log]:
        """Returns what of a page has not been read yet."""
        new: list[Log] = []
        for log in page:
            is_ours = _is_output(log) or unfinished_stream(log) is not None
            # A batch whose arrival the API could not confirm is there twice, with the same times.
            if is_ours and (self._last is None or log.timestamp > self._last):
                self._last = log.timestamp
                new.append(log)
        if self._last is not None:
            self._wanted.timestamp = LogFilterTimestamp(after_=self._last)  # pyright: ignore[reportArgumentType]
        return new


async def read_whole(client: PrefectClient, flow_run_id: UUID, task_run_id: UUID) -> str:
    """Reads what a command has printed up to now."""
    reader = LogReader(flow_run_id, task_run_id)
    parts: list[str] = []
    while page := await reader.read(client):
        parts += map(_text, page)
    return "".join(parts)


async def read_by_command(client: PrefectClient, flow_run_id: UUID) -> dict[UUID, str]:
    """Reads what the commands of a run have printed, by the ids of their task runs.

    Of a command that still prints, something may be missing.
    """
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    records: dict[UUID, dict[datetime, str]] = {}
    offset = 0
    while True:
        page = await client.read_logs(
            wanted, limit=LOG_PAGE_SIZE, offset=offset, sort=LogSort.TIMESTAMP_ASC
        )
        for log in filter(_is_output, page):
            if log.task_run_id is not None:
                records.setdefault(log.task_run_id, {})[log.timestamp] = _text(log)
        if len(page) < LOG_PAGE_SIZE:
            return {task_run_id: "".join(texts.values()) for task_run_id, texts in records.items()}
        offset += LOG_PAGE_SIZE


def _is_output(log: Log) -> bool:
    return log.name.startswith(PREFIX)


def unfinished_stream(log: Log) -> Stream | None:
    """Returns the stream of which a record has the unfinished line, None of all other records."""
    return next((one for one in STREAMS if log.name == f"{UNFINISHED_PREFIX}{one}"), None)


def _text(log: Log) -> str:
    return f"{log.message}\n"
