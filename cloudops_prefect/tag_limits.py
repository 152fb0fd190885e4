"""The concurrency limits of tags: a command holds a slot of each before its task run begins.

Prefect's task engine takes these slots by `concurrency()`, whose cancelled waiter goes on acquiring
and keeps its process from ending. Here a wait ends when it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import asynccontextmanager
from http.client import LOCKED
from typing import TYPE_CHECKING

import anyio
import httpx
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
from prefect.context import TagsContext
from prefect.exceptions import PrefectHTTPStatusError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

LEASE_SECONDS = 60.0
RENEW_AFTER_SECONDS = 30.0
RETRY_SECONDS = 2.0
RELEASE_TIMEOUT_SECONDS = 5.0
"""Seconds after which a slot is left to the end of its lease."""
GRANT_TIMEOUT_SECONDS = 1.0
"""Seconds that a cancelled wait waits for the answer to what it has asked for."""
UNLIMITED_SECONDS = 5.0
"""Seconds for which tags are taken to have no limits, as Prefect does."""

logger = logging.getLogger("cloudops_prefect.tag_limits")


class TagLimits:
    """Take and give back the slots of tags.

    Args:
        client: A client of the API.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._unlimited_at: dict[tuple[str, ...], float] = {}
        # One wait at a time asks for the same slots, the first one first.
        self._turns: defaultdict[tuple[str, ...], anyio.Lock] = defaultdict(anyio.Lock)

    @asynccontextmanager
    async def held(self, task_run_id: UUID) -> AsyncGenerator[None]:
        """Hold a slot of each limit of the current tags; wait for it until it is free.

        Args:
            task_run_id: The task run that is the holder.
        """
        names = tuple(f"tag:{tag}" for tag in sorted(TagsContext.get().current_tags))
        lease_id = await self._acquire(names, task_run_id) if names else None
        if lease_id is None:
            yield
            return
        renewal = asyncio.create_task(self._renew(lease_id))
        try:
            yield
        finally:
            renewal.cancel()
            await self._release(lease_id)

    async def _acquire(self, names: tuple[str, ...], task_run_id: UUID) -> UUID | None:
        holder = ConcurrencyLeaseHolder(type="task_run", id=task_run_id)
        has_waited = False
        async with self._turns[names]:
            while not self._are_unlimited(names, UNLIMITED_SECONDS):
                try:
                    return await self._ask(names, holder)
                except PrefectHTTPStatusError as error:
                    if error.response.status_code != LOCKED:
                        raise
                    if not has_waited:
                        logger.info("Task run %s waits for a slot of %s", task_run_id, names)
                    has_waited = True
                    pause = float(error.response.headers.get("Retry-After", RETRY_SECONDS))
                except (httpx.HTTPError, OSError) as error:
                    # No limit that is known to be there is exceeded because the API is away.
                    if self._are_unlimited(names, float("inf")):
                        break
                    logger.debug("The limits of %s can't be asked for: %s", names, error)
                    pause = RETRY_SECONDS
                await anyio.sleep(pause)
        return None

    def _are_unlimited(self, names: tuple[str, ...], seconds: float) -> bool:
        seen_at = self._unlimited_at.get(names)
        return seen_at is not None and anyio.current_time() - seen_at < seconds

    async def _ask(self, names: tuple[str, ...], holder: ConcurrencyLeaseHolder) -> UUID | None:
        """Return the lease of the slots, None if no tag has a limit."""
        asking = asyncio.create_task(self._increment(names, holder))
        try:
            granted = await asyncio.shield(asking)
        except asyncio.CancelledError:
            await self._release_granted(asking)
            raise
        if granted is None:
            self._unlimited_at[names] = anyio.current_time()
        return granted

    async def _increment(
        self, names: tuple[str, ...], holder: ConcurrencyLeaseHolder
    ) -> UUID | None:
        answer = await self._client.increment_concurrency_slots_with_lease(
            [*names], 1, "concurrency", LEASE_SECONDS, holder
        )
        granted = ConcurrencyLimitWithLeaseResponse.model_validate(answer.json())
        return granted.lease_id if granted.limits else None

    async def _release_granted(self, asking: asyncio.Task[UUID | None]) -> None:
        with anyio.move_on_after(GRANT_TIMEOUT_SECONDS, shield=True):
            await asyncio.wait([asking])
        if not asking.done():
            asking.cancel()
        elif asking.exception() is None and (lease_id := asking.result()) is not None:
            await self._release(lease_id)

    async def _renew(self, lease_id: UUID) -> None:
        while True:
            await anyio.sleep(RENEW_AFTER_SECONDS)
            try:
                await self._client.renew_concurrency_lease(lease_id, LEASE_SECONDS)
            except Exception as error:  # noqa: BLE001 (the command goes on, as in Prefect's engine)
                logger.debug("The lease %s was not renewed: %s", lease_id, error)

    async def _release(self, lease_id: UUID) -> None:
        with anyio.move_on_after(RELEASE_TIMEOUT_SECONDS, shield=True):
            try:
                await self._client.release_concurrency_slots_with_lease(lease_id)
            except Exception as error:  # noqa: BLE001 (the lease ends by itself)
                logger.debug("The lease %s was not released: %s", lease_id, error)
