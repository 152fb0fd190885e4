"""The local Prefect server: one a user, in the background, for those who have configured no API."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, TypedDict, cast

from cloudops_prefect.errors import ExecutionError
from cloudops_prefect.server_settings import DEFAULT_SETTINGS

HOST = "127.0.0.1"
DEFAULT_PORT = 4200
# The first start creates the database, for which a small and busy machine needs a minute.
BOOT_SECONDS = 180.0
STOP_SECONDS = 15.0


class LocalServerError(ExecutionError):
    """The local Prefect server could not be started or stopped."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A local Prefect server that is alive, though perhaps still booting.

    Attributes:
        pid: The server's process.
        port: The port on the loopback interface.
        healthy: Whether its API answered when it was asked.
        log_path: What the server prints.
    """

    pid: int
    port: int
    healthy: bool
    log_path: Path

    @property
    def url(self) -> str:
        """The address of the API, as `PREFECT_API_URL` wants it."""
        return _api_url(self.port)

    @property
    def ui_url(self) -> str:
        """The address of the UI, as `PREFECT_UI_URL` wants it."""
        # Prefect's own links lead to the old UI, which is at the root.
        return f"http://{HOST}:{self.port}/v2"


class _State(TypedDict):
    pid: int
    port: int


def prefect_home() -> Path:
    """Where the server keeps its database, and we our files: `PREFECT_HOME`, or `~/.prefect`."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser().absolute()


def status() -> LocalServer | None:
    """The local server of this user, also while it boots; None if there is none."""
    if not _alive():
        return None
    state = _read_state()
    if state is None:
        return None
    healthy = _healthy(state["port"])
    return LocalServer(state["pid"], state["port"], healthy=healthy, log_path=_log_path())


def running_server() -> LocalServer | None:
    """The local server of this user, if its API answers."""
    server = status()
    return server if server is not None and server.healthy else None


def ensure() -> LocalServer:
    """The running server, started if need be; two callers at once get the same one.

    Raises:
        LocalServerError: It ended while it booted, or did not answer within three minutes.
    """
    if (server := running_server()) is not None:
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
        if not _alive():
            _spawn(_choose_port())
        return _wait_until_healthy()


def stop() -> LocalServer | None:
    """Stops the server and waits until its process is gone; returns the one stopped, if any.

    Raises:
        LocalServerError: The process belongs to another user, or could not be ended.
    """
    server = status()
    if server is None:
        return None
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        _send(server, signal_number)
        if _until(lambda: not _alive(), STOP_SECONDS):
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
    with _held(_life_lock_path(), 5) as life_lock, _new_log() as log:
        # Whoever sees the lock held must not find the process of last time in the state.
        _state_path().unlink(missing_ok=True)
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
        _write_state({"pid": process.pid, "port": port})


def _environment(port: int) -> dict[str, str]:
    from prefect.settings import get_current_settings

    # The server runs elsewhere, so what the current directory's files say must be handed over.
    own = get_current_settings().to_environment_variables(exclude_unset=True)
    fixed = {
        "PREFECT_API_URL": _api_url(port),
        "PREFECT_HOME": str(prefect_home()),
        "PREFECT_SERVER_API_BASE_PATH": "/api",
        "PREFECT_SERVER_UI_API_URL": _api_url(port),
        "PREFECT_SERVER_UI_SERVE_BASE": "/",
    }
    inherited = {k: v for k, v in os.environ.items() if k not in _ADDRESSES}
    return {**DEFAULT_SETTINGS, **inherited, **own, **fixed}


# Where another server is, and names that would win over the ones that we set.
_ADDRESSES = {"PREFECT_API_KEY", "PREFECT_UI_API_URL", "PREFECT_UI_URL", "PREFECT_UI_SERVE_BASE"}


def _choose_port() -> int:
    """The port of last time, else Prefect's own, else any that is free."""
    state = _read_state()
    for port in ([state["port"]] if state else []) + [DEFAULT_PORT, 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return cast("int", probe.getsockname()[1])
    raise LocalServerError("No free port for the local Prefect server")


def _wait_until_healthy() -> LocalServer:
    _until(lambda: not _alive() or running_server() is not None, BOOT_SECONDS)
    server = status()
    if server is not None and server.healthy:
        return server
    what = "ended while it started" if server is None else f"did not answer in {BOOT_SECONDS:.0f} s"
    raise LocalServerError(
        f"The local Prefect server {what}; the end of its log ({_log_path()}):\n{_log_tail()}"
    )


def _healthy(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _alive() -> bool:
    """Whether the process lives: the kernel drops its lock when it ends, however it does."""
    try:
        lock = os.open(_life_lock_path(), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)


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
    descriptor = os.open(_log_path(), flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _log_tail(lines: int = 15) -> str:
    text = _log_path().read_text(errors="replace")
    return "\n".join(line for line in text.splitlines()[-lines:] if line.strip())


def _read_state() -> _State | None:
    try:
        state: Any = json.loads(_state_path().read_text())
        return {"pid": int(state["pid"]), "port": int(state["port"])}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _write_state(state: _State) -> None:
    new = _state_path().with_suffix(".new")
    new.write_text(json.dumps(state))
    new.replace(_state_path())


def _api_url(port: int) -> str:
    return f"http://{HOST}:{port}/api"


def _life_lock_path() -> Path:
    return prefect_home() / "cloudops-server.lock"


def _state_path() -> Path:
    return prefect_home() / "cloudops-server.json"


def _log_path() -> Path:
    return prefect_home() / "cloudops-server.log"
