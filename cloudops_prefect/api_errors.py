"""What an error that comes from the Prefect API means."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
from httpx import HTTPStatusError, TransportError
from prefect.client.orchestration import get_client
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.settings import get_current_settings

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.local_api import local_api, unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from prefect.client.orchestration import PrefectClient

ANSWER_TIMEOUT_SECONDS = 8.0
"""Seconds after which an API that is there would have answered."""


@contextmanager
def answered_soon() -> Generator[None]:
    """Bounds the wait for an answer of the API; Prefect's client tries again for minutes.

    Raises:
        ExecutionIOError: if there is none in time.
    """
    # Where no API is configured Prefect starts a server first, which takes longer.
    patience = ANSWER_TIMEOUT_SECONDS if get_current_settings().api.url else math.inf
    with anyio.move_on_after(patience) as scope:
        yield
    if scope.cancelled_caught:
        raise ExecutionIOError(_unreachable())


@asynccontextmanager
async def api() -> AsyncGenerator[PrefectClient]:
    """Gives a client of the API that has answered it.

    Raises:
        ExecutionIOError: if the API does not answer, or does not as it should.
    """
    try:
        async with local_api(), get_client() as client:
            await check_reachable(client)
            yield client
    except Exception as error:
        if (complaint := api_complaint(error)) is None:
            raise
        raise ExecutionIOError(complaint) from error


@asynccontextmanager
async def answered_client() -> AsyncGenerator[PrefectClient]:
    """Gives the client that everything in this context shares, once the API has answered it.

    Raises:
        ExecutionIOError: if it does not.
    """
    async with AsyncExitStack() as stack:
        with answered_soon():
            context = await stack.enter_async_context(AsyncClientContext.get_or_create())
        # Prefect would make another for each flow run, which takes the event loop's time.
        stack.enter_context(SyncClientContext.get_or_create())
        yield context.client


async def check_reachable(client: PrefectClient) -> None:
    """Finds out whether the API answers.

    Raises:
        ExecutionIOError: if it does not.
    """
    with answered_soon():
        if (error := await client.api_healthcheck()) is not None:
            raise error


def api_complaint(error: Exception) -> str | None:
    """Returns what to tell a user of an error from the API; None if it is none."""
    api = f"the Prefect API at {get_current_settings().api.url}"
    if isinstance(error, HTTPStatusError):
        answer = f"{api} answered {error.response.status_code} {error.response.reason_phrase}"
        # So does a Prefect server at an address that is not that of its API.
        missing = error.response.status_code == HTTPStatus.NOT_FOUND
        return f"{answer}; is PREFECT_API_URL right? It ends in /api" if missing else answer
    # Prefect's client asks for the API's version first, and reports with a bare RuntimeError.
    unreachable = isinstance(error, RuntimeError) and str(error).startswith("Failed to reach API")
    if unreachable or isinstance(error, TransportError):
        return _unreachable()
    return None


def _unreachable() -> str:
    return "; ".join(unreachable(get_current_settings().api.url))
