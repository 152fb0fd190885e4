"""The source of a stream of events for a run of this process."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from cloudops_prefect.framing import LineFramer
from cloudops_prefect.logfiles import is_here
from cloudops_prefect.sources import Start, followed_lines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

    from cloudops_prefect.models import ExecutionResult
    from cloudops_prefect.output import OutputLog
    from cloudops_prefect.plan_run import PlanRun
    from cloudops_prefect.sources import ApiSource, Ids, Printed
LOOK_INTERVAL_SECONDS = 0.05


class LocalSource:
    """A run of this process; when it is over without having begun, the API knows why.

    Args:
        is_running: Whether it is still driven.
        find: Finds what has been started of it.
        stored: What the API has stored of it.
    """

    def __init__(
        self,
        is_running: Callable[[], bool],
        find: Callable[[], Awaitable[PlanRun | None]],
        stored: ApiSource,
    ) -> None:
        self._is_running = is_running
        self._find = find
        self.unfinished = stored.unfinished
        self._stored = stored
        self._run: PlanRun | None = None

    async def started(self) -> Mapping[int, Start]:
        """Returns the commands that have started."""
        if (run := await self._found()) is not None:
            executions = list(run.executions.items())
            return {
                index: Start(one.execution_id, one.started_at)
                for index, one in executions
                if one.started_at is not None
            }
        return {} if self._is_running() else await self._stored.started()

    async def result(self, index: int) -> ExecutionResult | None:
        """Returns how a command ended, None as long as it has not."""
        run = await self._found()
        known = None if run is None or run.is_single else run.results.get(index)
        if run is None or known is None:
            return None if self._is_running() else await self._stored.result(index)
        return run.result_with_output(index)

    async def ended(self) -> datetime | None:
        """Returns when the run has ended, None as long as something of it may start."""
        return None if self._is_running() else await self._stored.ended()

    async def lines(self, index: int, ids: Ids) -> AsyncGenerator[Iterator[Printed], None]:
        """Yields what a command prints from its log; from its result if it could have none."""
        while (log := await self._log(index)) is None and await self.result(index) is None:
            await anyio.sleep(LOOK_INTERVAL_SECONDS)
        if self._run is None:
            lines = self._stored.lines(index, ids)
        elif log is not None and is_here(log.path):
            lines = followed_lines(self, log.path, index, ids, log.start)
        else:
            lines = self._lines_of_result(index, ids)
        async with aclosing(lines):
            async for events in lines:
                yield events

    async def _log(self, index: int) -> OutputLog | None:
        run = await self._found()
        execution = run.executions.get(index) if run else None
        return execution.log if execution else None

    async def _lines_of_result(
        self, index: int, ids: Ids
    ) -> AsyncGenerator[Iterator[Printed], None]:
        while (result := await self.result(index)) is None:
            await anyio.sleep(LOOK_INTERVAL_SECONDS)
        yield _kept_lines(result, ids)

    async def _found(self) -> PlanRun | None:
        if self._run is None:
            self._run = await self._find()
        return self._run


def _kept_lines(result: ExecutionResult, ids: Ids) -> Iterator[Printed]:
    for kind, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        framer = LineFramer()
        lines = [*framer.feed(text.encode()), *framer.flush()]
        yield from ids.events(kind, lines, result.completed_at or datetime.now(UTC))
