"""The few places of Prefect that have no public name, each with its reason and its check.

Nothing else in this package uses a name of Prefect's that begins with an underscore. Where Prefect
no longer has what a function here relies on, it logs that once and leaves Prefect as it is.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from prefect.events.clients import EventsClient
from prefect.events.worker import EventsWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from prefect.client.orchestration import PrefectClient

EventsClientOverride: TypeAlias = tuple[type[EventsClient], dict[str, Any]]
"""The class of an events client, and the options that Prefect makes it with."""

logger = logging.getLogger("cloudops_prefect.prefect_internals")


def wrap_transport(
    client: PrefectClient, wrap: Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]
) -> None:
    """Put a transport of ours between a client and its own.

    Given a transport by `httpx_settings`, the public way, Prefect makes each flow run another
    client, each with connections of its own.

    Args:
        client: The client of an event loop.
        wrap: Returns the transport to use in place of the given one.
    """
    http: Any = getattr(client, "_client", None)
    below: Any = getattr(http, "_transport", None)
    if below is None:
        _log_missing("a client's transport: busy answers of the API are retried by Prefect alone")
        return
    wrapped = wrap(below)
    if not isinstance(below, type(wrapped)):
        http._transport = wrapped  # noqa: SLF001


def replace_server_command(server_class: type, start: Callable[[Any], object]) -> None:
    """Have Prefect's temporary servers started by a function of ours.

    No setting of Prefect's names the command. Its own server outlives a process that is killed.

    Args:
        server_class: Prefect's `SubprocessASGIServer`.
        start: Takes the server and returns its process.
    """
    if not hasattr(server_class, "_run_uvicorn_command"):
        _log_missing("the command of the temporary server: it is started without our settings")
        return
    server_class._run_uvicorn_command = start  # noqa: SLF001 # pyright: ignore[reportAttributeAccessIssue]


def events_client_override() -> EventsClientOverride | None:
    """Return the events client that somebody else has set, and its options.

    Prefect has a function that sets it and none that reads it, so that it could be put back.
    """
    if not hasattr(EventsWorker, "_client_override"):
        _log_missing("the events client that is set: it is reset to Prefect's own afterwards")
        return None
    override = EventsWorker._client_override  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return None if override is None else (override[0], dict(override[1]))


@cache
def _log_missing(what: str) -> None:
    logger.warning("This Prefect no longer has %s", what)
