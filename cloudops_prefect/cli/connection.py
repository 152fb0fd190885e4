"""The Prefect API that the command line uses: the configured one, else a local server's."""

import logging
import os

from cloudops_prefect import env_secrets, local_server, server
from cloudops_prefect.cli.printing import error_line


def connect() -> str | None:
    """Makes sure that there is an API to talk to; starts the local server if none is configured.

    Returns:
        The address of the local server's API, if none is configured.

    Raises:
        LocalServerError: It could not be started.
    """
    from prefect.settings import get_current_settings

    _quieten_prefect()
    if get_current_settings().api.url is not None:
        return None
    local = local_server.find_running_server() or _awaited_local_server()
    _use(local)
    return local.url


def _awaited_local_server() -> local_server.LocalServer:
    if local_server.find_local_server() is not None:
        error_line("Waiting for the local Prefect server to answer ...")
        return server.ensure()
    error_line("No Prefect API is configured: starting a local Prefect server (about 10 s) ...")
    local = server.ensure()
    error_line(f"It runs in the background, its UI is at {local.ui_url}")
    return local


def _use(local: local_server.LocalServer) -> None:
    from prefect.context import refresh_global_settings_context

    os.environ["PREFECT_API_URL"] = local.url
    os.environ.setdefault("PREFECT_UI_URL", local.ui_url)
    refresh_global_settings_context()


# Where the classes of Prefect's handlers are; those of others are left alone.
_HANDLERS = {"logging", "prefect.logging.handlers"}


def _quieten_prefect() -> None:
    """Keeps Prefect's own log off the terminal; the API gets it all the same."""
    # Sets it up, which takes long enough not to do it again.
    import prefect.main  # noqa: F401 # pyright: ignore[reportUnusedImport]

    if "PREFECT_LOGGING_LEVEL" in os.environ:
        return
    # Its background services have a logger of their own, and print whole events while the API is
    # away.
    for logger in (logging.getLogger(), logging.getLogger("prefect._internal")):
        for handler in logger.handlers:
            if type(handler).__module__ in _HANDLERS and isinstance(handler, logging.StreamHandler):
                # Levels are set anew whenever Prefect sets its logging up again.
                handler.addFilter(_is_critical)
    env_secrets.logger.addHandler(_to_terminal)
    # By it Prefect decides whether it prints, past all loggers, that the API misses some of a log.
    logging.raiseExceptions = False


class _Warning(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error_line(f"warning: {record.getMessage()}")


_to_terminal = _Warning()


def _is_critical(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.CRITICAL
