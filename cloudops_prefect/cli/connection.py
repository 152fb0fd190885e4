"""The Prefect API that the command line uses: the configured one, else a local server's."""

import logging
import os

from cloudops_prefect import env_secrets, server
from cloudops_prefect.cli.printing import error_line
from cloudops_prefect.home_directory import check_home_directory
from cloudops_prefect.local_server import LocalServer, find_local_server


def connect() -> None:
    """Make sure that there is an API to talk to; start the local server if none is configured.

    Raises:
        ExecutionError: This user has no home directory.
        LocalServerError: It could not be started.
    """
    check_home_directory()
    from cloudops_prefect.local_api import adopt_local_server, is_configured

    _quieten_prefect()
    adopt_local_server(None if is_configured() else _local_server())


def _local_server() -> LocalServer:
    found = find_local_server()
    if found is not None and found.healthy:
        return found
    if found is not None:
        error_line("Waiting for the local Prefect server to answer ...")
        return server.start()
    error_line("No Prefect API is configured: starting a local Prefect server (about 10 s) ...")
    started = server.start()
    error_line(f"It runs in the background, its UI is at {started.ui_url}")
    return started


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
