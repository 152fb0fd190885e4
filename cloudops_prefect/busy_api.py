"""Requests to an API that is busy for a moment.

A Prefect server on SQLite writes one transaction at a time, and answers 503 to a request whose turn
does not come. Prefect's client then pauses for 2, 4, 8 seconds, when milliseconds would do: of
fifty executions started at once, the last one waited for a minute.
"""

from __future__ import annotations

import random
from http.client import SERVICE_UNAVAILABLE
from typing import TYPE_CHECKING

import anyio
import httpx

from cloudops_prefect.prefect_internals import wrap_transport

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

AT_ONCE = 4
"""Requests in flight. With more the server is no faster, but refuses some; with fewer it idles."""
RETRY_TIMEOUT_SECONDS = 5.0
"""Seconds after which a 503 is left to Prefect's client."""
SHORTEST_PAUSE = 0.005
LONGEST_PAUSE = 0.1


def ask_again_soon(client: PrefectClient) -> None:
    """Have a client ask an API that is busy again soon, besides what it does by itself."""
    wrap_transport(client, SoonAgain)


class SoonAgain(httpx.AsyncBaseTransport):
    """Sends a few requests at a time, and again what is answered 503."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport
        self._in_flight = anyio.CapacityLimiter(AT_ONCE)
        self._turn = anyio.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Returns the answer; the last one, if the API was busy all the time."""
        # What only reads keeps nobody waiting: above all whoever asks whether the API is there.
        if request.method == "GET":
            return await self._transport.handle_async_request(request)
        response = await self._send(request)
        if not _is_busy(response):
            return response
        end = anyio.current_time() + RETRY_TIMEOUT_SECONDS
        # One by one: together they would keep each other from their turns.
        async with self._turn:
            return await self._again(request, response, end)

    async def aclose(self) -> None:
        """Closes the transport below."""
        await self._transport.aclose()

    async def _again(
        self, request: httpx.Request, response: httpx.Response, end: float
    ) -> httpx.Response:
        pause = SHORTEST_PAUSE
        while _is_busy(response) and anyio.current_time() < end:
            await anyio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 (nothing secret)
            pause = min(2 * pause, LONGEST_PAUSE)
            response = await self._send(request)
        return response

    async def _send(self, request: httpx.Request) -> httpx.Response:
        async with self._in_flight:
            response = await self._transport.handle_async_request(request)
            if _is_busy(response):
                # Until it is read it has a connection, which others need for their turn.
                await response.aread()
            return response


def _is_busy(response: httpx.Response) -> bool:
    # With this header a server says itself when to come again.
    return response.status_code == SERVICE_UNAVAILABLE and "Retry-After" not in response.headers
