"""What is said of runs whose process died, and the sign that tells of such a death."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect.settings import get_current_settings

from cloudops_prefect.liveness import Sign, sign_of_life

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime
    from uuid import UUID

    from prefect.client.schemas.objects import State

    from cloudops_prefect.config import ExecutionConfig

DIED = "the process that ran it died"
_SILENT = re.compile(rf"{DIED}: no heartbeat for (\d+) s")


def died_in_silence(window: timedelta) -> str:
    """Returns what is said of a run that has been silent for a time, in whole seconds."""
    return f"{DIED}: no heartbeat for {window.total_seconds():.0f} s"


def shows_that_it_lives(
    flow_run_id: UUID, attempt: int, config: ExecutionConfig
) -> AbstractContextManager[None]:
    """Lets the next engine of this machine find out that the run's process died, if it dies."""
    return sign_of_life(config.resolved_log_dir, Sign(flow_run_id, attempt, api_url()))


def error_of_state(state: State[Any] | None) -> str | None:
    """Returns a final state's message; of a crash it says that, and when, the process died."""
    if state is None or not state.is_crashed():
        return None if state is None else state.message
    message = (state.message or "Prefect calls the run crashed").removesuffix(".")
    if silent := _SILENT.fullmatch(message):
        heard = state.timestamp - timedelta(seconds=int(silent[1]))
        return f"{message}; last heard of at {clock(heard)}"
    if message.startswith(DIED):
        return message
    return f"{DIED}: {message}; last heard of at {clock(state.timestamp)}"


def clock(time: datetime) -> str:
    """Writes a time as people of this machine's time zone read it."""
    return time.astimezone().isoformat(sep=" ", timespec="seconds")


def api_url() -> str:
    """Returns the address of the Prefect API; empty if none is configured."""
    return get_current_settings().api.url or ""
