"""What an error that comes from the Prefect API means."""

from __future__ import annotations

from httpx import HTTPStatusError, TransportError
from prefect.settings import get_current_settings


def api_complaint(error: Exception) -> str | None:
    """Returns what to tell a user of an error from the API; None if it is none."""
    api = f"the Prefect API at {get_current_settings().api.url}"
    if isinstance(error, HTTPStatusError):
        return f"{api} answered {error.response.status_code} {error.response.reason_phrase}"
    # Prefect's client asks for the API's version first, and reports with a bare RuntimeError.
    unreachable = isinstance(error, RuntimeError) and str(error).startswith("Failed to reach API")
    if unreachable or isinstance(error, TransportError):
        return f"{api} does not answer; is PREFECT_API_URL right?"
    return None
