"""Sending to the Prefect API what must arrive: output, results, artifacts, final states."""

from __future__ import annotations

import logging
from http.client import REQUEST_ENTITY_TOO_LARGE, REQUEST_TIMEOUT, TOO_MANY_REQUESTS
from itertools import chain, repeat
from typing import TYPE_CHECKING, TypeVar

import anyio
import httpx
from prefect.exceptions import PrefectHTTPStatusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
_BUSY = {REQUEST_TIMEOUT, TOO_MANY_REQUESTS}

logger = logging.getLogger("cloudops_prefect.delivery")


async def until_delivered(send: Callable[[], Awaitable[object]]) -> None:
    """Sends again until the API answers; what it refuses is dropped, with a warning."""
    for delay in chain((0.5, 1, 2, 5), repeat(10)):
        try:
            await send()
        except PrefectHTTPStatusError as error:
            if error.response.is_client_error and error.response.status_code not in _BUSY:
                logger.warning("The API refused what it was sent: %s", error)
                return
        except (httpx.HTTPError, OSError) as error:
            logger.debug("The API doesn't answer, trying again in %s s: %s", delay, error)
        else:
            return
        await anyio.sleep(delay)


def halves(items: list[T]) -> list[list[T]]:
    """Cuts a list in two; of a single item nothing is made."""
    middle = len(items) // 2
    return [items[:middle], items[middle:]] if middle else []


async def deliver(
    send: Callable[[list[T]], Awaitable[object]],
    items: list[T],
    parts_of: Callable[[list[T]], list[list[T]]] = halves,
) -> None:
    """Sends items at once; in parts if the API, or a proxy before it, finds them too large."""

    async def attempt() -> None:
        try:
            await send(items)
        except PrefectHTTPStatusError as error:
            too_large = error.response.status_code == REQUEST_ENTITY_TOO_LARGE
            if not too_large or not (parts := parts_of(items)):
                raise
            for part in parts:
                await deliver(send, part, parts_of)

    await until_delivered(attempt)
