"""Sends output and results to the Prefect API in the background, in batches.

Prefect's own log worker takes one record a line into a queue without bound, and drops a batch that
fails. Here a batch is read from the execution's log when the one before it has arrived, so that a
slow or absent API costs neither memory nor the command's time, and nothing is lost for it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, groupby, repeat
from operator import attrgetter
from typing import TYPE_CHECKING

import anyio
import httpx
from prefect.client.schemas.actions import LogCreate
from prefect.exceptions import PrefectHTTPStatusError

from cloudops_prefect.output import LineFramer
from cloudops_prefect.records import ResultRecord, to_artifact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

    from cloudops_prefect.models import ExecutionResult
    from cloudops_prefect.output import Chunk, OutputReader

BEGINNING = datetime.min.replace(tzinfo=UTC)
INTERVAL = 0.25
"""Seconds between two batches of output."""
BATCH_BYTES = 512 * 1024
MOST_TURNS = 20
"""Records that one look at a command's output makes at most, of the two streams taking turns."""
RESULTS_BYTES = 1024 * 1024
PATIENCE = 120.0
"""Seconds without an answer from the API after which a flush gives up."""

LOGGER_NAMES = {"stdout": "cloudops.stdout", "stderr": "cloudops.stderr", "note": "cloudops.note"}
LEVELS = {"stdout": logging.INFO, "stderr": logging.WARNING, "note": logging.WARNING}

logger = logging.getLogger("cloudops_prefect.publishing")


@dataclass(slots=True)
class OutputFeed:
    """An execution's output on its way to the API.

    Attributes:
        budget: Bytes of output that may still be sent.
        ended: Whether the command has ended, so that its last bytes are there to be read.
    """

    path: Path
    flow_run_id: UUID
    task_run_id: UUID | None
    budget: int
    reader: OutputReader
    ended: bool = False
    drained: bool = False
    last: datetime = BEGINNING
    framers: dict[str, LineFramer] = field(
        default_factory=lambda: {name: LineFramer() for name in LOGGER_NAMES}
    )

    def next_records(self) -> list[LogCreate]:
        """Reads on and returns log records of whole lines, none if nothing has been printed."""
        records: list[LogCreate] = []
        chunks = self.reader.read(min(BATCH_BYTES, self.budget + 1))
        for chunk in _joined(chunks):
            self.budget -= len(chunk.data)
            self._append(records, chunk.kind, self.framers[chunk.kind].feed(chunk.data), chunk.time)
        if self.budget < 0:
            records.append(self._limit_reached())
        elif chunks or not self.ended:
            return records
        else:
            for kind, framer in self.framers.items():
                self._append(records, kind, framer.flush(), datetime.now(UTC))
        self.drained = True
        return records

    def _append(
        self, records: list[LogCreate], kind: str, lines: list[str], time: datetime
    ) -> None:
        if kind == "note":
            # It begins with a newline if the output before it doesn't end with one.
            lines = [line for line in lines if line]
        if lines:
            records.append(self._record(kind, "\n".join(lines), time))

    def _record(self, kind: str, text: str, time: datetime) -> LogCreate:
        # The API sorts by time alone: records of one execution must not share a microsecond.
        self.last = max(time, self.last + timedelta(microseconds=1))
        return LogCreate(
            name=LOGGER_NAMES[kind],
            level=LEVELS[kind],
            # PostgreSQL's text can't hold a NUL.
            message=text.replace("\0", "\N{SYMBOL FOR NULL}"),
            timestamp=self.last,  # pyright: ignore[reportArgumentType]
            flow_run_id=self.flow_run_id,
            task_run_id=self.task_run_id,
        )

    def _limit_reached(self) -> LogCreate:
        text = f"the limit of output sent to the API is reached; the rest is in {self.path}"
        return self._record("note", f"[cloudops] {text}", datetime.now(UTC))


def _joined(chunks: list[Chunk]) -> list[Chunk]:
    """Joins what the same stream printed: a program that prints line by line makes many chunks.

    Streams that take turns all the time are put one behind the other, each in its own order.
    """
    turns = _turns(chunks)
    return turns if len(turns) <= MOST_TURNS else _turns(sorted(chunks, key=attrgetter("kind")))


def _turns(chunks: list[Chunk]) -> list[Chunk]:
    turns = [[*turn] for _, turn in groupby(chunks, key=attrgetter("kind"))]
    return [
        first._replace(data=b"".join(one.data for one in (first, *rest))) for first, *rest in turns
    ]


@dataclass(slots=True)
class PendingResult:
    """A result on its way to the API; its output is loaded when its turn comes, not before."""

    flow_run_id: UUID
    index: int
    attempt: int
    load: Callable[[], ExecutionResult]

    def record(self) -> ResultRecord:
        """Returns the record to be sent."""
        return ResultRecord(
            flow_run_id=self.flow_run_id,
            index=self.index,
            attempt=self.attempt,
            result=self.load(),
        )


class Publisher:
    """Sends what the runs of one event loop print and how their commands end.

    `run` goes on until its task is cancelled; `flush` first, so that nothing is left behind.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._feeds: dict[UUID, list[OutputFeed]] = {}
        self._results: dict[UUID, list[PendingResult]] = {}
        self._urgent = anyio.Event()
        self._ticked = anyio.Event()

    def add_output(self, feed: OutputFeed) -> None:
        """Begins to send an execution's output."""
        self._feeds.setdefault(feed.flow_run_id, []).append(feed)

    def add_result(self, result: PendingResult) -> None:
        """Queues a command's result."""
        self._results.setdefault(result.flow_run_id, []).append(result)

    async def flush(self, flow_run_id: UUID) -> None:
        """Waits until the API has everything of a run, for at most `PATIENCE` seconds."""
        with anyio.move_on_after(PATIENCE) as patience:
            while flow_run_id in self._feeds or flow_run_id in self._results:
                ticked = self._ticked
                self._urgent.set()
                await ticked.wait()
        if patience.cancelled_caught:
            logger.warning("The API doesn't answer: output of run %s is not sent", flow_run_id)
            self._feeds.pop(flow_run_id, None)
            self._results.pop(flow_run_id, None)

    async def run(self) -> None:
        """Sends a batch whenever there is one, `INTERVAL` seconds apart unless somebody waits."""
        while True:
            with anyio.move_on_after(INTERVAL):
                await self._urgent.wait()
            self._urgent = anyio.Event()
            # Who reads a command's result may rely on its output being there.
            results = {flow_run_id: len(ended) for flow_run_id, ended in self._results.items()}
            for flow_run_id in [*self._feeds]:
                await self._send_output(flow_run_id)
            for flow_run_id, count in results.items():
                await self._send_results(flow_run_id, count)
            self._ticked.set()
            self._ticked = anyio.Event()

    async def _send_results(self, flow_run_id: UUID, count: int) -> None:
        pending = self._results.get(flow_run_id, [])
        count = min(count, len(pending))
        while count > 0:
            records: list[ResultRecord] = []
            size = 0
            for result in pending[:count]:
                records.append(record := result.record())
                size += len(record.result.stdout) + len(record.result.stderr)
                if size > RESULTS_BYTES:
                    break
            artifact = to_artifact(flow_run_id, records)
            await until_delivered(partial(self._client.create_artifact, artifact))
            del pending[: len(records)]
            count -= len(records)
        if not pending:
            self._results.pop(flow_run_id, None)

    async def _send_output(self, flow_run_id: UUID) -> None:
        feeds = self._feeds.get(flow_run_id, [])
        batch: list[LogCreate] = []
        size = 0
        for feed in feeds:
            while not feed.drained and (records := feed.next_records()):
                batch += records
                size += sum(len(record.message) for record in records)
                if size > BATCH_BYTES:
                    await until_delivered(partial(self._client.create_logs, batch))
                    batch, size = [], 0
        if batch:
            await until_delivered(partial(self._client.create_logs, batch))
        feeds[:] = [feed for feed in feeds if not feed.drained]
        if not feeds:
            self._feeds.pop(flow_run_id, None)


async def until_delivered(send: Callable[[], Awaitable[object]]) -> None:
    """Sends again until the API answers; what it refuses is dropped, with a warning."""
    for delay in chain((0.5, 1, 2, 5), repeat(10)):
        try:
            await send()
        except PrefectHTTPStatusError as error:
            if error.response.is_client_error:
                logger.warning("The API refused output or results: %s", error)
                return
        except (httpx.HTTPError, OSError) as error:
            logger.debug("The API doesn't answer, trying again in %s s: %s", delay, error)
        else:
            return
        await anyio.sleep(delay)
