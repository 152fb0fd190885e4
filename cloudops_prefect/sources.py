"""Where a stream of events learns how a run goes on: in this process, or from the API."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

import anyio
from prefect.client.schemas.filters import (
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

from cloudops_prefect import history
from cloudops_prefect.api_logs import LogReader, unfinished_stream
from cloudops_prefect.api_timeout import given_up
from cloudops_prefect.dead_runs import tell_crash
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.events import LineEvent, events_of, line_events, unfinished_line
from cloudops_prefect.framing import LineGroup
from cloudops_prefect.logfiles import is_here
from cloudops_prefect.models import (
    ExecutionStatus,
    StderrEvent,
    StdoutEvent,
    UnfinishedLine,
)
from cloudops_prefect.output_feed import LIMIT, PREFIX
from cloudops_prefect.plan_run import task_run_id
from cloudops_prefect.records import RecordReader, ResultRecord
from cloudops_prefect.states import status_of
from cloudops_prefect.unrecorded import all_task_runs, unrecorded_results

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, Log, TaskRun

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.history import Execution
    from cloudops_prefect.models import ExecutionRequest, ExecutionResult
    from cloudops_prefect.output import Position
    from cloudops_prefect.services import Services

T = TypeVar("T")
Printed: TypeAlias = LineEvent | UnfinishedLine
API_INTERVAL = 0.3
"""Seconds between two looks at a run at the API."""
ANSWER_TIMEOUT_SECONDS = 120.0
"""Seconds without an answer from the API after which a stream gives up."""
RETRY_INTERVAL = 1.0
EVENTS: dict[str, type[LineEvent]] = {
    "stdout": StdoutEvent,
    "stderr": StderrEvent,
    # Nobody is to take what the API has for the whole.
    LIMIT: StderrEvent,
}

logger = logging.getLogger("cloudops_prefect.sources")


class Start(NamedTuple):
    """As which execution a command has started, and when, if that is known."""

    execution_id: UUID
    time: datetime | None


class Source(Protocol):
    """How a run goes on; its commands are named by their index."""

    @property
    def unfinished(self) -> bool:
        """Whether its lines include unfinished ones."""
        ...

    async def started(self) -> Mapping[int, Start]:
        """Returns the commands that have started."""
        ...

    async def result(self, index: int) -> ExecutionResult | None:
        """Returns how a command ended, None as long as it has not."""
        ...

    async def ended(self) -> datetime | None:
        """Returns when the run has ended, None as long as something of it may start."""
        ...

    def lines(self, index: int, ids: Ids) -> AsyncGenerator[Iterator[Printed], None]:
        """Yields what a command that has started prints, to its end, as it comes."""
        ...


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids that the events of a command carry."""

    execution_id: UUID
    request_id: UUID

    def events(self, kind: str, lines: Iterable[str], time: datetime) -> Iterator[Printed]:
        """Makes events of lines; of our notes, only of the one that says that there is no more."""
        if (event := EVENTS.get(kind)) is None:
            return iter(())
        return events_of(event, lines, self.execution_id, self.request_id, time)

    def events_of_record(self, log: Log) -> Iterator[Printed]:
        """Makes events of a record of the API."""
        if (stream := unfinished_stream(log)) is not None:
            group = LineGroup(stream, [], log.timestamp, log.message)
            return iter((unfinished_line(group, self.execution_id, self.request_id),))
        return self.events(log.name.removeprefix(PREFIX), log.message.split("\n"), log.timestamp)


class ApiSource:
    """A run that goes on somewhere else, or has ended: what the API has stored is the truth.

    Args:
        ask: Calls a function with the services.
        execution: The run, or one command of it.
        config: Tells where logs would be if they were here.
        unfinished: Whether its lines include unfinished ones.
    """

    def __init__(
        self,
        ask: Callable[..., Awaitable[Any]],
        execution: Execution,
        config: ExecutionConfig,
        *,
        unfinished: bool = False,
    ) -> None:
        self.unfinished = unfinished
        self._ask = ask
        self._execution = execution
        self._config = config
        self._flow_run_id = execution.flow_run.id
        self._attempt = execution.attempt or history.newest_attempt(execution.flow_run)
        plan = execution.plan
        self._is_single = plan is None
        self._requests = _requests(execution)
        self._indices = {self._task_run_id(index): index for index in range(len(self._requests))}
        self._records = RecordReader(execution.flow_run.id)
        self._started: dict[int, Start] = {}
        self._results: dict[int, ExecutionResult] = {}
        self._ended: datetime | None = None
        self._looked = float("-inf")
        self._looking = asyncio.Lock()

    async def started(self) -> Mapping[int, Start]:
        """Returns the commands that have started."""
        await self._look()
        return self._started

    async def result(self, index: int) -> ExecutionResult | None:
        """Returns how a command ended, None as long as it has not."""
        await self._look()
        # A single command has ended when its run has: that tells whether it was cancelled.
        return self._results.get(index) if self._ended or not self._is_single else None

    async def ended(self) -> datetime | None:
        """Returns when the run has ended, None as long as something of it may start."""
        await self._look()
        return self._ended

    async def lines(self, index: int, ids: Ids) -> AsyncGenerator[Iterator[Printed], None]:
        """Yields what a command prints, from its log if that is here, else from the API's."""
        path = self.log_path(ids)
        # The file of a single command holds what its earlier attempts have printed as well.
        if is_here(path) and not (self._is_single and self._attempt > 1):
            lines = followed_lines(self, path, index, ids)
        else:
            lines = self._lines_of_api(index, ids)
        async with aclosing(lines):
            async for events in lines:
                yield events

    def log_path(self, ids: Ids) -> Path:
        """Returns where a command's log is, if it is here."""
        return self._config.log_path(ids.execution_id)

    async def _lines_of_api(self, index: int, ids: Ids) -> AsyncGenerator[Iterator[Printed], None]:
        reader = LogReader(self._flow_run_id, self._task_run_id(index), unfinished=self.unfinished)
        while True:
            await self._look()
            # Before the logs are read: they are there when the result is.
            has_ended = self._ended or index in self._results
            page = await self._patiently(_read_page, reader)
            for log in page:
                yield ids.events_of_record(log)
            if has_ended and not page:
                return
            if not page:
                await anyio.sleep(API_INTERVAL)

    async def _look(self) -> None:
        """Looks at the run, once for all who ask at the same time."""
        async with self._looking:
            if self._ended or time.monotonic() - self._looked < API_INTERVAL:
                return
            await self._patiently(self._read)
            self._looked = time.monotonic()

    async def _read(self, services: Services) -> None:
        client = services.client
        # First: what the run has left is there when it has ended.
        flow_run = await client.read_flow_run(self._flow_run_id)
        if await tell_crash(client, self._config, flow_run):
            flow_run = await client.read_flow_run(self._flow_run_id)
        newest = history.newest_attempt(flow_run)
        over = newest > self._attempt or status_of(flow_run.state).is_final
        records = await self._records.read(client)
        for record in sorted(records, key=_beginning):
            self._take(record)
        if over:
            await self._read_rest(client, flow_run)
        elif newest == self._attempt and history.is_begun(flow_run):
            await self._read_running(client)
        for index, result in self._results.items():
            if result.started_at and result.execution_id == self._execution_id(index):
                self._started[index] = Start(result.execution_id, result.started_at)
        self._ended = _end_of(flow_run) if over else None

    def _take(self, record: ResultRecord) -> None:
        # What has completed in an earlier attempt does not run in this one.
        completed = record.result.status is ExecutionStatus.COMPLETED
        if record.attempt == self._attempt or (record.attempt < self._attempt and completed):
            self._results[record.index] = record.result

    async def _read_running(self, client: PrefectClient) -> None:
        for task_run in (await _read_running(client, self._flow_run_id)).values():
            if (index := self._indices.get(task_run.id)) is not None:
                self._started[index] = Start(self._execution_id(index), task_run.start_time)

    async def _read_rest(self, client: PrefectClient, flow_run: FlowRun) -> None:
        """Finds out what became of commands that have left no result in this attempt."""
        missing = [index for index in range(len(self._requests)) if index not in self._results]
        if missing and self._is_single and status_of(flow_run.state).is_final:
            execution = replace(self._execution, flow_run=flow_run)
            self._results[0] = await history.read_result(client, execution)
            return
        rest = await unrecorded_results(
            client, flow_run, self._requests, missing, attempt=self._attempt
        )
        for index, result in rest.items():
            own_id = self._execution_id(index)
            self._results[index] = result.model_copy(update={"execution_id": own_id})

    async def _patiently(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Asks the API again while it does not answer, for `ANSWER_TIMEOUT_SECONDS` seconds.

        That of a run that was given up, since it did not answer, is asked once.
        """
        patience = 0 if self._flow_run_id in given_up else ANSWER_TIMEOUT_SECONDS
        deadline = time.monotonic() + patience
        while True:
            try:
                return await self._ask(function, *args)
            except ExecutionIOError as error:
                if time.monotonic() > deadline:
                    raise
                logger.debug("A stream goes on later: %s", error)
            await anyio.sleep(RETRY_INTERVAL)

    def _task_run_id(self, index: int) -> UUID:
        return task_run_id(self._flow_run_id, self._attempt, index)

    def _execution_id(self, index: int) -> UUID:
        return self._flow_run_id if self._is_single else self._task_run_id(index)


def _beginning(record: ResultRecord) -> datetime:
    return record.result.started_at or datetime.now(UTC)


def _end_of(flow_run: FlowRun) -> datetime:
    # A run that another attempt has begun has no end any more.
    begun = flow_run.state.timestamp if flow_run.state else datetime.now(UTC)
    return flow_run.end_time or begun


def _requests(execution: Execution) -> list[ExecutionRequest]:
    if (plan := execution.plan) is not None:
        return plan.commands
    return [request] if (request := execution.request) else []


async def followed_lines(
    source: Source, path: Path, index: int, ids: Ids, start: Position | None = None
) -> AsyncGenerator[Iterator[Printed], None]:
    """Yield what a command prints, from its log, until the source has its result."""

    async def still_running() -> bool:
        return await source.result(index) is None

    lines = line_events(
        path,
        ids.execution_id,
        ids.request_id,
        start=start,
        still_running=still_running,
        unfinished=source.unfinished,
    )
    try:
        async with aclosing(lines):
            async for events in lines:
                yield events
    except ExecutionIOError as error:
        # The end of the stream is read next, and raises the error if the API is away.
        logger.warning("Output of execution %s can't be read: %s", ids.execution_id, error)


async def _read_page(services: Services, reader: LogReader) -> list[Log]:
    return await reader.read(services.client)


async def _read_running(client: PrefectClient, flow_run_id: UUID) -> dict[UUID, TaskRun]:
    wanted = TaskRunFilter(
        flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]),
        state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING])),
    )
    return await all_task_runs(client, wanted)
