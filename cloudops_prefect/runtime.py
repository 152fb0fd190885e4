"""The runs of an engine in this process: their thread, and their end with whoever started them."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from concurrent import futures
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cloudops_prefect import local_runs
from cloudops_prefect.api_errors import api_complaint, check_reachable
from cloudops_prefect.control import sigterm
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.events import deliver
from cloudops_prefect.history import newest_attempt
from cloudops_prefect.loop_thread import LoopThread
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.plan_run import task_run_id
from cloudops_prefect.states import status_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.events import FanOutHandler
    from cloudops_prefect.models import ExecutionEvent
    from cloudops_prefect.services import Services
    from cloudops_prefect.work import Work

R = TypeVar("R")
T = TypeVar("T")
EXIT_PATIENCE = 60.0
SLOW = 1.5
"""Seconds without an answer after which the API is asked whether it is there at all."""

logger = logging.getLogger("cloudops_prefect.runtime")


class Runtime:
    """What an engine and those made from it by `with_event_handler` share.

    Attributes:
        newest: The newest run of each request or plan that was started here.
    """

    def __init__(self, config: ExecutionConfig) -> None:
        self.newest: dict[UUID, UUID] = {}
        self._in_plans: dict[UUID, tuple[UUID, int, int]] = {}
        self._config = config
        self._thread: LoopThread | None = None
        self._newest_thread: LoopThread | None = None
        self._running: dict[UUID, futures.Future[None]] = {}
        self._deliveries: dict[asyncio.Task[None], UUID | None] = {}
        self._told: set[UUID] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._terminating: asyncio.Task[None] | None = None

    async def ask(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Runs `function` with the services and `args` in the thread.

        Raises:
            ExecutionIOError: if the API does not answer, or does not as it should.
        """
        if self._thread is None or not self._thread.usable:
            self._thread = self._newest_thread = LoopThread(self._config)
        thread = self._thread
        try:
            return await _answer(thread, function, *args)
        except Exception as error:
            if (complaint := thread.run_in_context(api_complaint, error)) is None:
                raise
            raise ExecutionIOError(complaint) from error

    def run_in_context(self, function: Callable[..., R], *args: Any) -> R:
        """Call `function` here, with the settings that the runs have, or have had."""
        thread = self._newest_thread
        return function(*args) if thread is None else thread.run_in_context(function, *args)

    def remember(self, work: Work, flow_run: FlowRun) -> None:
        """Keeps in mind which run is the newest of a request or plan, and its commands."""
        self.newest[work.item.id] = flow_run.id
        self._in_plans.pop(work.item.id, None)
        if isinstance(work.item, ExecutionPlan):
            attempt = newest_attempt(flow_run)
            # The first of equal ids, as it is found at the API.
            for index, request in reversed([*enumerate(work.item.commands)]):
                self._in_plans[request.id] = (flow_run.id, attempt, index)

    def log_id(self, known: UUID) -> UUID:
        """Returns the id under which the log of an execution is, or of a request's newest."""
        if (place := self._in_plans.get(known)) is not None:
            return task_run_id(*place)
        return self.newest.get(known, known)

    async def drive(self, work: Work, flow_run: FlowRun) -> None:
        """Begins to run what was created, after a first `ask`."""
        assert self._thread is not None, "the run was created in it"  # noqa: S101
        future = self._thread.spawn(local_runs.drive, work, flow_run)
        self._running[flow_run.id] = future
        future.add_done_callback(partial(self._forget, flow_run.id))
        if not self._is_kept():
            if self._keeper is None:
                # A loop may end without a word to its tasks.
                atexit.register(self._stop_at_exit)
            self._keeper = asyncio.create_task(self._keep())
            # A task that is cancelled before its first step never comes to its `finally`.
            await asyncio.sleep(0)

    def deliver(
        self,
        flow_run_id: UUID,
        events: AsyncGenerator[Iterable[ExecutionEvent], None],
        handler: FanOutHandler,
        *,
        elsewhere: bool,
    ) -> None:
        """Begins to tell `handler` the events of a run, which goes on here or elsewhere."""
        delivery = asyncio.create_task(_deliver(flow_run_id, events, handler))
        self._told.add(flow_run_id)
        self._deliveries[delivery] = flow_run_id if elsewhere else None
        delivery.add_done_callback(self._deliveries.pop)

    def is_told(self, flow_run_id: UUID) -> bool:
        """Whether a handler is told, or has been, what a run does."""
        return flow_run_id in self._told

    def is_running(self, flow_run_id: UUID) -> bool:
        """Whether a run goes on in this process."""
        return flow_run_id in self._running

    async def until_ended(self, flow_run_id: UUID) -> None:
        """Waits for the end of a run of this process; returns at once if it is none."""
        if (future := self._running.get(flow_run_id)) is not None:
            ended = asyncio.wrap_future(future)
            await asyncio.wait([ended])
            # Of one that was cut off with its thread the API is asked.
            if not ended.cancelled():
                ended.result()

    async def close(self) -> None:
        """Cancels what runs, and waits until the processes are gone and the API knows it all."""
        if self._terminating is not None:
            await self._terminating
        elif self._keeper is None or not self._is_kept():
            await self._stop()
        else:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper

    async def _keep(self) -> None:
        """Stays until the engine or the loop ends: `asyncio.run` waits for cancelled tasks."""
        ends_by: int | None = None
        try:
            with sigterm.awaited() as terminated:
                with suppress(asyncio.CancelledError):
                    await terminated.wait()
                    self._terminating, ends_by = asyncio.current_task(), terminated.number
                await self._stop()
        finally:
            # Also when the program has learnt that its runs are cancelled, and ends by itself.
            if ends_by is not None:
                os.kill(os.getpid(), ends_by)

    def _is_kept(self) -> bool:
        """Whether the end of this event loop is heard of; one may have ended without a word."""
        return self._keeper is not None and self._keeper.get_loop() is asyncio.get_running_loop()

    async def _stop(self) -> None:
        if self._thread is None or not self._thread.usable:
            return
        await _uninterrupted(self._thread.spawn(local_runs.stop_all))
        # Not before: a second Ctrl-C ends the loop in the middle of that.
        atexit.unregister(self._stop_at_exit)
        await self._end_deliveries()
        self._keeper = None
        thread, self._thread = self._thread, None
        await thread.stop()

    async def _end_deliveries(self) -> None:
        """Tells the handlers the rest of what has ended; what goes on elsewhere goes on."""
        loop = asyncio.get_running_loop()
        deliveries = {one: id_ for one, id_ in self._deliveries.items() if one.get_loop() is loop}
        for delivery, flow_run_id in deliveries.items():
            if flow_run_id is not None and not await self._has_ended(flow_run_id):
                delivery.cancel()
        await asyncio.gather(*deliveries, return_exceptions=True)

    async def _has_ended(self, flow_run_id: UUID) -> bool:
        try:
            return await self.ask(_has_ended, flow_run_id)
        except ExecutionIOError:
            return False

    def _stop_at_exit(self) -> None:
        if self._thread is not None and self._thread.usable and self._running:
            # Prefect's events worker has ended by now, and reports each event that it can't take.
            logging.getLogger("prefect.events").setLevel(logging.CRITICAL)
            stopped = self._thread.spawn(local_runs.stop_all)
            futures.wait([stopped], timeout=EXIT_PATIENCE)

    def _forget(self, flow_run_id: UUID, ended: futures.Future[None]) -> None:
        # A run that was resumed is there with another future.
        if self._running.get(flow_run_id) is ended:
            del self._running[flow_run_id]


async def _deliver(
    flow_run_id: UUID,
    events: AsyncGenerator[Iterable[ExecutionEvent], None],
    handler: FanOutHandler,
) -> None:
    try:
        await deliver(events, handler)
    except Exception:
        logger.exception("The events of run %s can't be followed to their end", flow_run_id)


async def _answer(thread: LoopThread, function: Callable[..., Awaitable[T]], *args: Any) -> T:
    call = asyncio.create_task(thread.call(function, *args))
    try:
        await asyncio.wait({call}, timeout=SLOW)
        if not call.done():
            await thread.call(_check_reachable)
        return await call
    finally:
        call.cancel()


async def _check_reachable(services: Services) -> None:
    await check_reachable(services.client)


async def _has_ended(services: Services, flow_run_id: UUID) -> bool:
    return status_of((await services.client.read_flow_run(flow_run_id)).state).is_final


async def _uninterrupted(future: futures.Future[None]) -> None:
    """Waits for a future, also when the loop is ending and cancels who waits."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([asyncio.wrap_future(future)])
    future.result()
