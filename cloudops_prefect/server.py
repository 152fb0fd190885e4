"""The local Prefect server: one a user, in the background, for those who have configured no API."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from cloudops_prefect.errors import ExecutionError
from cloudops_prefect.local_server import (
    DEFAULT_PORT,
    HOST,
    LocalServer,
    api_url,
    find_local_server,
    find_running_server,
    is_alive,
    lock_path,
    log_path,
    prefect_home,
    read_state,
    state_path,
    write_state,
)
from cloudops_prefect.server_settings import DEFAULT_SETTINGS

# The first start creates the database, for which a small and busy machine needs a minute.
BOOT_SECONDS = 180.0
STOP_SECONDS = 15.0


class LocalServerError(ExecutionError):
    """The local Prefect server could not be started or stopped."""


def ensure() -> LocalServer:
    """The running server, started if need be; two callers at once get the same one.

    Raises:
        LocalServerError: It ended while it booted, or did not answer within three minutes.
    """
    if (server := find_running_server()) is not None:
        return server
    return start()


def start() -> LocalServer:
    """Starts the server in the background and waits until its API answers.

    One that already runs is returned as it is.

    Raises:
        LocalServerError: It ended while it booted, or did not answer within three minutes.
    """
    prefect_home().mkdir(mode=0o700, parents=True, exist_ok=True)
    with _held(prefect_home() / "cloudops-server.start.lock", BOOT_SECONDS + STOP_SECONDS):
        if not is_alive():
            _spawn(_choose_port())
        return _wait_until_healthy()


def stop() -> LocalServer | None:
    """Stops the server and waits until its process is gone; returns the one stopped, if any.

    Raises:
        LocalServerError: The process belongs to another user, or could not be ended.
    """
    server = find_local_server()
    if server is None:
        return None
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        _send(server, signal_number)
        if _until(lambda: not is_alive(), STOP_SECONDS):
            return server
    raise LocalServerError(f"The local Prefect server (process {server.pid}) could not be stopped")


def _send(server: LocalServer, signal_number: signal.Signals) -> None:
    try:
        os.kill(server.pid, signal_number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise LocalServerError(
            f"The local Prefect server (process {server.pid}) belongs to another user"
        ) from None


def _spawn(port: int) -> None:
    """Starts the process, which from then on holds the lock that says that it lives."""
    with _held(lock_path(), 5) as life_lock, _new_log() as log:
        # Whoever sees the lock held must not find the process of last time in the state.
        state_path().unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cloudops_prefect.server_process",
                "server",
                "start",
                f"--host={HOST}",
                f"--port={port}",
            ],
            cwd=prefect_home(),
            env=_environment(port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[life_lock],
            start_new_session=True,
        )
        write_state({"pid": process.pid, "port": port})


def _environment(port: int) -> dict[str, str]:
    from prefect.settings import get_current_settings

    # The server runs elsewhere, so what the current directory's files say must be handed over.
    own = get_current_settings().to_environment_variables(exclude_unset=True)
    fixed = {
        "PREFECT_API_URL": api_url(port),
        "PREFECT_HOME": str(prefect_home()),
        "PREFECT_SERVER_API_BASE_PATH": "/api",
        "PREFECT_SERVER_UI_API_URL": api_url(port),
        "PREFECT_SERVER_UI_SERVE_BASE": "/",
    }
    inherited = {k: v for k, v in os.environ.items() if k not in _ADDRESSES}
    return {**DEFAULT_SETTINGS, **inherited, **own, **fixed}


# Where another server is, and names that would win over the ones that we set.
_ADDRESSES = {"PREFECT_API_KEY", "PREFECT_UI_API_URL", "PREFECT_UI_URL", "PREFECT_UI_SERVE_BASE"}


def _choose_port() -> int:
    """The port of last time, else Prefect's own, else any that is free."""
    state = read_state()
    for port in ([state["port"]] if state else []) + [DEFAULT_PORT, 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return cast("int", probe.getsockname()[1])
    raise LocalServerError("No free port for the local Prefect server")


def _wait_until_healthy() -> LocalServer:
    _until(lambda: not is_alive() or find_running_server() is not None, BOOT_SECONDS)
    server = find_local_server()
    if server is not None and server.healthy:
        return server
    what = "ended while it started" if server is None else f"did not answer in {BOOT_SECONDS:.0f} s"
    raise LocalServerError(
        f"The local Prefect server {what}; the end of its log ({log_path()}):\n{_log_tail()}"
    )


@contextmanager
def _held(path: Path, wait_seconds: float) -> Generator[int]:
    """Holds an exclusive lock; a child that inherits the descriptor goes on holding it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _until(lambda: _try_lock(descriptor), wait_seconds):
            raise LocalServerError(f"Another process has held {path} for {wait_seconds:.0f} s")
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met


@contextmanager
def _new_log() -> Generator[int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(log_path(), flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _log_tail(lines: int = 15) -> str:
    text = log_path().read_text(errors="replace")
    return "\n".join(line for line in text.splitlines()[-lines:] if line.strip())
