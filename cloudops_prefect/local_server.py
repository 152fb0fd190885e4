"""Find the local Prefect server: one a user, started in the background by the command line."""

import fcntl
import json
import os
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, TypedDict

HOST = "127.0.0.1"
DEFAULT_PORT = 4200


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
        return api_url(self.port)

    @property
    def ui_url(self) -> str:
        """The address of the UI, as `PREFECT_UI_URL` wants it."""
        # Prefect's own links lead to the old UI, which is at the root.
        return f"http://{HOST}:{self.port}/v2"


class ServerState(TypedDict):
    """The file that tells where the server is."""

    pid: int
    port: int


def prefect_home() -> Path:
    """Where the server keeps its database, and we our files: `PREFECT_HOME`, or `~/.prefect`."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser().absolute()


def find_local_server() -> LocalServer | None:
    """Return the local server of this user, also while it boots; None if there is none."""
    if not is_alive():
        return None
    state = read_state()
    if state is None:
        return None
    healthy = _is_healthy(state["port"])
    return LocalServer(state["pid"], state["port"], healthy=healthy, log_path=log_path())


def find_running_server() -> LocalServer | None:
    """Return the local server of this user, if its API answers."""
    server = find_local_server()
    return server if server is not None and server.healthy else None


def is_alive() -> bool:
    """Return whether the process lives: the kernel drops its lock when it ends, however it does."""
    try:
        lock = os.open(lock_path(), os.O_RDONLY)
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


def read_state() -> ServerState | None:
    """Return where the newest server is, or was."""
    try:
        state: Any = json.loads(state_path().read_text())
        return {"pid": int(state["pid"]), "port": int(state["port"])}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def write_state(state: ServerState) -> None:
    """Record where the server is, for other processes."""
    new = state_path().with_suffix(".new")
    new.write_text(json.dumps(state))
    new.replace(state_path())


def api_url(port: int) -> str:
    """Return the address of the API of a local server at a port."""
    return f"http://{HOST}:{port}/api"


def lock_path() -> Path:
    """Return the file that the server's process keeps locked while it lives."""
    return prefect_home() / "cloudops-server.lock"


def state_path() -> Path:
    """Return the file of the `ServerState`."""
    return prefect_home() / "cloudops-server.json"


def log_path() -> Path:
    """Return the file that the server prints to."""
    return prefect_home() / "cloudops-server.log"


def _is_healthy(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
