"""Sends output and results to the Prefect API in the background, in batches.

Prefect's own log worker takes one record a line into a queue without bound, and drops a batch that
fails. Here a batch is read from the execution's log when the one before it has arrived, so that a
slow or absent API costs neither memory nor the command's time, and nothing is lost for it.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from prefect.settings import get_current_settings

from cloudops_prefect.delivery import deliver, halves
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.output_feed import RECORD_BYTES, in_pieces
from cloudops_prefect.records import ResultRecord, to_artifact
from cloudops_prefect.unforeseen_errors import reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.actions import LogCreate

    from cloudops_prefect.models import ExecutionResult
    from cloudops_prefect.output_feed import OutputFeed

T = TypeVar("T")
UPLOAD_INTERVAL_SECONDS = 0.25
"""Seconds between two batches of output of a run."""
BATCH_BYTES = 512 * 1024
RESULTS_BYTES = 1024 * 1024
OUTPUT_TIMEOUT_SECONDS = 120.0
"""Seconds without an answer from the API after which a flush gives up output."""

logger = logging.getLogger("cloudops_prefect.publishing")


@dataclass(slots=True)
class PendingResult:
    """A result on its way to the API; its output is loaded when its turn comes, not before.

    Attributes:
        bare: The record without the output.
        load: Returns the result with it.
    """

    bare: ResultRecord
    load: Callable[[], ExecutionResult]

    @property
    def flow_run_id(self) -> UUID:
        """The run that it is a result of."""
        return self.bare.flow_run_id

    def record(self) -> ResultRecord:
        """Return the record to be sent, without the output if that can't be loaded."""
        try:
            return self.bare.model_copy(update={"result": self.load()})
        except Exception as error:
            logger.exception("The output of a result of run %s can't be read", self.flow_run_id)
            return without_output(self.bare, error)


@dataclass(slots=True)
class Outbox:
    """What is on its way to the API of one run.

    Attributes:
        due: When it is looked at next, by the event loop's clock.
        awaited: Whether somebody waits for what has ended, which is then sent before that.
    """

    due: float
    feeds: list[OutputFeed] = field(default_factory=list["OutputFeed"])
    results: list[PendingResult] = field(default_factory=list[PendingResult])
    awaited: bool = False

    @property
    def holds_what_has_ended(self) -> bool:
        """Whether something is left to be sent of a command that has ended."""
        return bool(self.results) or any(feed.ended for feed in self.feeds)

    def give_up_output(self) -> None:
        """Leaves out what is left of the output of commands that have ended."""
        for feed in self.feeds:
            feed.drained = feed.ended
        self.feeds = [feed for feed in self.feeds if not feed.drained]


class Publisher:
    """Sends what the runs of one event loop print and how their commands end.

    `run` goes on until its task is cancelled; `flush` first, so that nothing is left behind.

    Attributes:
        record_bytes: How long a record may be that the API takes.
    """

    def __init__(self, client: PrefectClient) -> None:
        # What Prefect measures is the record as JSON.
        longest = get_current_settings().logging.to_api.max_log_size // 2
        self.record_bytes = min(longest, RECORD_BYTES)
        self._client = client
        self._outboxes: dict[UUID, Outbox] = {}
        self._complaints: dict[UUID, str] = {}
        self._woken = anyio.Event()
        self._ticked = anyio.Event()

    def add_output(self, feed: OutputFeed) -> None:
        """Begins to send an execution's output."""
        self._outbox(feed.flow_run_id).feeds.append(feed)

    def add_result(self, result: PendingResult) -> None:
        """Queues a command's result."""
        self._outbox(result.flow_run_id).results.append(result)

    async def flush(self, flow_run_id: UUID) -> str | None:
        """Wait until the API has everything of the commands of a run that have ended.

        Results are waited for however long the API does not answer; output of which no result is
        waited for is given up after `OUTPUT_TIMEOUT_SECONDS` seconds.

        Returns:
            Why something could not be sent; None if all was.
        """
        if (outbox := self._outboxes.get(flow_run_id)) is not None:
            outbox.awaited = True
            self._woken.set()
        while (outbox := self._outboxes.get(flow_run_id)) and outbox.holds_what_has_ended:
            with anyio.move_on_after(OUTPUT_TIMEOUT_SECONDS) as patience:
                await self._ticked.wait()
            if patience.cancelled_caught and not outbox.results:
                logger.warning("The API doesn't answer: output of run %s is not sent", flow_run_id)
                outbox.give_up_output()
        return self._complaints.pop(flow_run_id, None)

    def give_up(self, error: BaseException) -> None:
        """Drop what there is, when `run` has failed: nobody is to wait for it."""
        for flow_run_id in [*self._outboxes]:
            self._drop(flow_run_id, error)
        self._tick()

    def _drop(self, flow_run_id: UUID, error: BaseException) -> None:
        outbox = self._outboxes.pop(flow_run_id)
        if outbox.feeds or outbox.results:
            what = f"{len(outbox.results)} results and output of {len(outbox.feeds)} commands"
            self._complaints[flow_run_id] = f"{what} could not be sent: {reason_of(error)}"
        outbox.give_up_output()

    async def run(self) -> None:
        """Send what there is of a run every `UPLOAD_INTERVAL_SECONDS`, at once what is awaited."""
        while True:
            await self._until_due()
            for flow_run_id, outbox in [*self._outboxes.items()]:
                try:
                    await self._send_due(outbox)
                except Exception as error:
                    logger.exception("What run %s has left can't be sent", flow_run_id)
                    self._drop(flow_run_id, error)
                else:
                    if not outbox.feeds and not outbox.results:
                        del self._outboxes[flow_run_id]
            self._tick()

    def _outbox(self, flow_run_id: UUID) -> Outbox:
        if not self._outboxes:
            self._woken.set()
        if (outbox := self._outboxes.get(flow_run_id)) is None:
            outbox = self._outboxes[flow_run_id] = Outbox(
                anyio.current_time() + UPLOAD_INTERVAL_SECONDS
            )
        return outbox

    async def _until_due(self) -> None:
        due = min((outbox.due for outbox in self._outboxes.values()), default=math.inf)
        with anyio.move_on_after(due - anyio.current_time()):
            await self._woken.wait()
        self._woken = anyio.Event()

    def _tick(self) -> None:
        self._ticked.set()
        self._ticked = anyio.Event()

    async def _send_due(self, outbox: Outbox) -> None:
        now = anyio.current_time()
        is_due = outbox.due <= now
        if not is_due and not outbox.awaited:
            return
        if is_due:
            outbox.due = now + UPLOAD_INTERVAL_SECONDS
        outbox.awaited = False
        # Who reads a command's result may rely on its output being there.
        ended = len(outbox.results)
        feeds = [feed for feed in outbox.feeds if is_due or feed.ended]
        try:
            await self._send_output(feeds)
        except Exception as error:
            logger.exception("Output can't be sent")
            self._give_up_feeds(feeds, error)
        outbox.feeds = [feed for feed in outbox.feeds if not feed.drained]
        await self.send_results(outbox.results, ended)

    async def _send_output(self, feeds: list[OutputFeed]) -> None:
        batch = LogBatch(self._send_logs)
        for feed in feeds:
            try:
                await _read_on(feed, batch)
            except ExecutionIOError as error:
                await batch.add(feed.unreadable(error))
            except Exception as error:
                logger.exception("Output can't be read: %s", feed.path)
                self._give_up_feeds([feed], error)
        await batch.send()

    def _give_up_feeds(self, feeds: list[OutputFeed], error: BaseException) -> None:
        for feed in feeds:
            feed.drained = True
            complaint = f"output could not be sent: {reason_of(error)}"
            self._complaints[feed.flow_run_id] = complaint

    async def _send_logs(self, records: list[LogCreate]) -> None:
        await deliver(self._create_logs, records, _shorter)

    async def send_results(self, pending: list[PendingResult], count: int) -> None:
        """Sends the first results of a list and removes them from it, a megabyte or so at once."""
        while count > 0:
            records: list[ResultRecord] = []
            size = 0
            for result in pending[:count]:
                records.append(record := result.record())
                size += len(record.result.stdout) + len(record.result.stderr)
                if size > RESULTS_BYTES:
                    break
            await self._send_records(records)
            del pending[: len(records)]
            count -= len(records)

    async def _send_records(self, records: list[ResultRecord]) -> None:
        """Send results; of those that can't be sent as they are, all but the output."""
        try:
            await deliver(self._create_artifact, records, _smaller)
        except Exception as error:
            logger.exception("Results of run %s can't be sent", records[0].flow_run_id)
            bare = [without_output(record, error) for record in records]
            for record in bare:
                await deliver(self._create_artifact, [record])

    async def _create_logs(self, records: list[LogCreate]) -> None:
        await self._client.create_logs(records)
        self._tick()

    async def _create_artifact(self, records: list[ResultRecord]) -> None:
        artifact = to_artifact(records[0].flow_run_id, records)
        document = artifact.model_dump(mode="json", exclude_unset=True)
        # The client's method for it emits an event too, which costs more than the artifact.
        await self._client.request("POST", "/artifacts/", json=document)
        self._tick()


def without_output(record: ResultRecord, error: BaseException) -> ResultRecord:
    """Return a record of a result whose output can't be stored; the result says so."""
    lost = {"stdout": "", "stderr": "", "stdout_truncated": True, "stderr_truncated": True}
    note = f"its output could not be stored: {reason_of(error)}"
    result = record.result.with_note(note).model_copy(update=lost)
    return record.model_copy(update={"result": result})


class LogBatch:
    """Log records that are sent together, as many of them as `BATCH_BYTES` allow."""

    def __init__(self, send: Callable[[list[LogCreate]], Awaitable[object]]) -> None:
        self._send = send
        self._records: list[LogCreate] = []
        self._size = 0

    async def add(self, records: list[LogCreate]) -> None:
        """Adds records, and sends those that there is no room for them with."""
        for record in records:
            size = len(record.message.encode())
            if self._size + size > BATCH_BYTES:
                await self.send()
            self._records.append(record)
            self._size += size

    async def send(self) -> None:
        """Sends what there is."""
        if self._records:
            await self._send(self._records)
            self._records, self._size = [], 0


async def _read_on(feed: OutputFeed, batch: LogBatch) -> None:
    """Adds what has been printed since, to its end if the command has ended."""
    while not feed.drained:
        records = feed.next_records()
        await batch.add(records)
        if not records and not feed.ended:
            return
        await checkpoint()


def _shorter(records: list[LogCreate]) -> list[list[LogCreate]]:
    """Returns halves of what is too large; of a single record halves of its lines."""
    return halves(records) or halves(in_pieces(*records))


def _smaller(records: list[ResultRecord]) -> list[list[ResultRecord]]:
    """Returns halves of what is too large; of a single result one with half of the output."""
    if parts := halves(records):
        return parts
    (record,) = records
    result = record.result
    if not result.stdout and not result.stderr:
        return []
    half = {
        "stdout": _second_half(result.stdout),
        "stderr": _second_half(result.stderr),
        "stdout_truncated": result.stdout_truncated or bool(result.stdout),
        "stderr_truncated": result.stderr_truncated or bool(result.stderr),
    }
    return [[record.model_copy(update={"result": result.model_copy(update=half)})]]


def _second_half(text: str) -> str:
    return text[(len(text) + 1) // 2 :]
