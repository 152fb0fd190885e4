"""What an error that comes from the Prefect API means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from httpx import HTTPStatusError, TransportError
from prefect.settings import get_current_settings

from cloudops_prefect.errors import ExecutionIOError

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

PATIENCE = 8.0
"""Seconds after which an API that is there would have answered."""


async def check_reachable(client: PrefectClient) -> None:
    """Finds out whether the API answers; Prefect's client waits and tries again for minutes.

    Raises:
        ExecutionIOError: if it does not.
    """
    with anyio.move_on_after(PATIENCE):
        if (error := await client.api_healthcheck()) is None:
            return
        raise error
    raise ExecutionIOError(_unreachable())


def api_complaint(error: Exception) -> str | None:
    """Returns what to tell a user of an error from the API; None if it is none."""
    api = f"the Prefect API at {get_current_settings().api.url}"
    if isinstance(error, HTTPStatusError):
        return f"{api} answered {error.response.status_code} {error.response.reason_phrase}"
    # Prefect's client asks for the API's version first, and reports with a bare RuntimeError.
    unreachable = isinstance(error, RuntimeError) and str(error).startswith("Failed to reach API")
    if unreachable or isinstance(error, TransportError):
        return _unreachable()
    return None


def _unreachable() -> str:
    url = get_current_settings().api.url
    return f"the Prefect API at {url} does not answer; is PREFECT_API_URL right?"
