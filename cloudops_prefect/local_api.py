"""Use the API of the local server, if one runs, in a process in which no API is configured.

Prefect would start a temporary server for the process. What ran there would be unknown to the
command line until that uses the same database, and two servers disturb each other on SQLite.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio.to_thread
import psutil
from prefect.context import (
    AsyncClientContext,
    FlowRunContext,
    SettingsContext,
    SyncClientContext,
    TaskRunContext,
    get_settings_context,
    refresh_global_settings_context,
)
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, get_current_settings
from prefect.utilities.urls import url_for

from cloudops_prefect.local_server import (
    await_local_server,
    find_local_server,
    is_default_address,
    is_local_address,
)
from cloudops_prefect.shell_words import command_line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping
    from uuid import UUID

    from cloudops_prefect.local_server import LocalServer

logger = logging.getLogger("cloudops_prefect.local_api")

SET_ADDRESS = 'eval "$(cloudops server env)"'
"""What a shell runs to give Prefect's own commands the address of the local server."""
# What a database is known by; the other settings of a database are about its use.
_DATABASE_SETTINGS = [
    f"PREFECT_SERVER_DATABASE_{name}"
    for name in ("CONNECTION_URL", "DRIVER", "HOST", "PORT", "NAME", "USER")
]
_used: ContextVar[LocalServer | None] = ContextVar("cloudops_local_server", default=None)


@asynccontextmanager
async def local_api() -> AsyncGenerator[None]:
    """Use the local server's API inside, if it runs and no API is configured or in use.

    A run that is part of another run belongs to the server of that run.
    """
    if is_configured() or _is_in_use():
        yield
        return
    server = await anyio.to_thread.run_sync(choose_local_server)
    with use_local_server(server):
        yield


def is_configured() -> bool:
    """Return whether Prefect's settings name an API."""
    return get_current_settings().api.url is not None


def choose_local_server() -> LocalServer | None:
    """Return the local server that the current settings may use, once it answers.

    None means that there is none, or none that answers, or one with another database than the one
    that the settings name.
    """
    settings = get_current_settings()
    server = await_local_server(settings.home)
    if server is None:
        return None
    if not server.healthy:
        logger.warning(
            "The local Prefect server (process %d) does not answer: a temporary server takes its "
            "place. To start it again: cloudops server stop && cloudops server start",
            server.pid,
        )
        return None
    wanted = _database(settings.to_environment_variables(exclude_unset=True))
    return server if not wanted or wanted == _database_of(server) else None


@contextmanager
def use_local_server(server: LocalServer | None) -> Generator[None]:
    """Use a local server's API inside, without a change to the environment.

    Args:
        server: The server; None changes nothing.
    """
    with ExitStack() as stack:
        if server is not None:
            current = get_settings_context()
            settings = current.settings.copy_with_update(
                updates={PREFECT_API_URL: server.url},
                set_defaults={PREFECT_UI_URL: server.ui_url},
            )
            stack.enter_context(SettingsContext(profile=current.profile, settings=settings))
        token = _used.set(server)
        stack.callback(_used.reset, token)
        yield


def adopt_local_server(server: LocalServer | None) -> None:
    """Use a local server's API in the whole process from now on, and in the commands that it runs.

    Args:
        server: The server; None where an API is configured, which is then used.
    """
    _used.set(server)
    if server is not None:
        os.environ["PREFECT_API_URL"] = server.url
        os.environ.setdefault("PREFECT_UI_URL", server.ui_url)
        refresh_global_settings_context()


def prefect_command(*words: str) -> str:
    """Return a command of Prefect as a line for a shell, with the API's address if that needs it.

    Prefect would start a server of its own for a command without a configured API.

    Args:
        words: The command's words after `prefect`.
    """
    line = command_line("prefect", *words)
    return f"{SET_ADDRESS}; {line}" if needs_address() else line


def needs_address() -> bool:
    """Return whether Prefect's own commands would not find the API that is used here."""
    return _used.get() is not None


def ui_url(kind: str, obj_id: UUID) -> str:
    """Return the address of an object in Prefect's UI; empty if the API has no known UI.

    Args:
        kind: As Prefect names it, like `flow-run`.
        obj_id: The object's id.
    """
    link = url_for(kind, obj_id=obj_id) or ""
    settings = get_current_settings()
    is_inferred = "ui_url" not in settings.model_fields_set
    if not (settings.api.url and settings.ui_url and is_inferred):
        return link
    # Prefect infers the address of the old UI, which is at the root.
    if is_local_address(settings.api.url, settings.home):
        return link.replace(settings.ui_url, f"{settings.ui_url}/v2", 1)
    return link


def unreachable(url: str | None) -> tuple[str, str]:
    """Return what to say of an API that does not answer, and what to do about it."""
    home = get_current_settings().home
    if url is None or not is_local_address(url, home):
        advice = "is PREFECT_API_URL right?"
        if url is not None and is_default_address(url):
            advice += " To start a local server: cloudops server start"
        return f"the Prefect API at {url} does not answer", advice
    server = find_local_server(home)
    if server is None:
        what = f"the local Prefect server at {url} is not running"
        return what, "to start it: cloudops server start"
    if server.phase == "starting":
        return f"the local Prefect server at {url} is still starting", f"its log: {server.log_path}"
    what = f"the local Prefect server at {url} does not answer (process {server.pid})"
    return what, "to start it again: cloudops server stop && cloudops server start"


def _is_in_use() -> bool:
    contexts = (FlowRunContext, TaskRunContext, AsyncClientContext, SyncClientContext)
    return any(context.get() is not None for context in contexts)


def _database_of(server: LocalServer) -> dict[str, str]:
    try:
        return _database(psutil.Process(server.pid).environ())
    except psutil.Error:
        return {}


def _database(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: variables[name] for name in _DATABASE_SETTINGS if name in variables}
