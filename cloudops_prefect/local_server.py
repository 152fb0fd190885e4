"""Find the local Prefect server: one a user, started in the background by the command line.

What is found is really this user's server: its process holds a lock that the kernel drops when the
process ends, belongs to this user, and listens at the port itself. A file that an earlier server
has left, another machine's server on a shared file system, or another user's server at the same
port are not taken for it.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

import psutil

HOST = "127.0.0.1"
DEFAULT_PORT = 4200
HEALTH_TIMEOUT_SECONDS = 5.0
_LOOPBACK_HOSTS = {HOST, "localhost"}
PROCESS_MODULE = "cloudops_prefect.server_process"
"""What the server's process runs, which distinguishes it from others."""
START_SECONDS = 180.0
"""How long a server may take to start: a small and busy machine needs a minute for the database."""
ANSWER_SECONDS = 30.0
"""How long a server that listens may take to answer."""
POLL_INTERVAL_SECONDS = 0.05
# The files of the current directory from which Prefect reads settings, and what says that its home
# may be among them.
_SETTINGS_FILES = {
    ".env": b"prefect_home",
    "prefect.toml": b"home",
    "pyproject.toml": b"tool.prefect",
}

Phase = Literal["starting", "running", "unresponsive"]


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A local Prefect server whose process is alive.

    Attributes:
        pid: The server's process.
        port: The port on the loopback interface.
        phase: `starting` until it listens; then `running` if its API answers, else `unresponsive`.
        log_path: The file that the server prints to.
    """

    pid: int
    port: int
    phase: Phase
    log_path: Path

    @property
    def healthy(self) -> bool:
        """Whether its API answered when it was asked."""
        return self.phase == "running"

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
    """The content of the file that says where the server is."""

    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """The files by which the processes of a user share one local server.

    Attributes:
        home: Prefect's home, where they are and where the server keeps its database.
    """

    home: Path

    @property
    def lock(self) -> Path:
        """The file that the server's process keeps locked while it lives."""
        return self.home / "cloudops-server.lock"

    @property
    def state(self) -> Path:
        """The file with the `ServerState`."""
        return self.home / "cloudops-server.json"

    @property
    def log(self) -> Path:
        """The file that the server prints to."""
        return self.home / "cloudops-server.log"


def prefect_home() -> Path:
    """Return Prefect's home, `~/.prefect` unless Prefect's setting `PREFECT_HOME` differs."""
    home = os.environ.get("PREFECT_HOME") or _home_from_files() or "~/.prefect"
    return Path(home).expanduser().absolute()


def server_files(home: Path | None = None) -> ServerFiles:
    """Return the files of the local server.

    Args:
        home: Prefect's home; None stands for `prefect_home()`.
    """
    return ServerFiles(home or prefect_home())


def find_local_server(home: Path | None = None) -> LocalServer | None:
    """Return the local server of this user, also while it starts; None if there is none.

    Args:
        home: Prefect's home; None stands for `prefect_home()`.
    """
    files = server_files(home)
    state = read_state(files) if is_alive(files) else None
    if state is None or not _is_server_process(state["pid"]):
        return None
    return LocalServer(state["pid"], state["port"], _phase(state), files.log)


def find_running_server(home: Path | None = None) -> LocalServer | None:
    """Return the local server of this user if its API answers."""
    server = find_local_server(home)
    return server if server is not None and server.healthy else None


def await_local_server(home: Path | None = None) -> LocalServer | None:
    """Return the local server once it answers, or as it is after a bounded wait for that.

    Args:
        home: Prefect's home; None stands for `prefect_home()`.
    """
    for phase, seconds in (("starting", START_SECONDS), ("unresponsive", ANSWER_SECONDS)):
        wait_until(lambda phase=phase: _phase_now(home) != phase, seconds)
    return find_local_server(home)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; return whether it does."""
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_SECONDS)
    return met


def is_local_address(url: str, home: Path | None = None) -> bool:
    """Return whether the address of an API is that of the local server, whether or not it runs.

    Args:
        url: The address, as in `PREFECT_API_URL`.
        home: Prefect's home; None stands for `prefect_home()`.
    """
    state = read_state(server_files(home))
    return state is not None and _loopback_port(url) == state["port"]


def is_default_address(url: str) -> bool:
    """Return whether a local server that starts for the first time would take this address."""
    return _loopback_port(url) == DEFAULT_PORT


def is_alive(files: ServerFiles) -> bool:
    """Return whether a server of this user lives: it holds a lock of a file that the user owns."""
    try:
        lock = os.open(files.lock, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    try:
        if os.fstat(lock).st_uid != os.geteuid():
            return False
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def read_state(files: ServerFiles) -> ServerState | None:
    """Return where the newest server is, or was."""
    try:
        state: Any = json.loads(files.state.read_text())
        return {"pid": int(state["pid"]), "port": int(state["port"])}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_state(files: ServerFiles, state: ServerState) -> None:
    """Record where the server is, for other processes."""
    new = files.state.with_suffix(".new")
    new.write_text(json.dumps(state))
    new.replace(files.state)


def api_url(port: int) -> str:
    """Return the address of the API of a local server at a port."""
    return f"http://{HOST}:{port}/api"


def _phase(state: ServerState) -> Phase:
    # The server listens only once it has started.
    if not _listens(state["pid"], state["port"]):
        return "starting"
    return "running" if _answers(state["port"]) else "unresponsive"


def _phase_now(home: Path | None) -> Phase | None:
    server = find_local_server(home)
    return None if server is None else server.phase


def _is_server_process(pid: int) -> bool:
    try:
        return PROCESS_MODULE in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def _listens(pid: int, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections("tcp4")
    except psutil.Error:
        return False
    return any(
        one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
        for one in connections
    )


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=HEALTH_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _loopback_port(url: str) -> int | None:
    """Return the port of an API's address on this machine, None for any other address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    is_local = parts.scheme == "http" and parts.hostname in _LOOPBACK_HOSTS
    return port if is_local and parts.path.rstrip("/") == "/api" else None


def _home_from_files() -> str | None:
    """Return the home that Prefect's settings files name, None if none of them can name one."""
    if not any(_contains(Path(name), word) for name, word in _SETTINGS_FILES.items()):
        return None
    # Costs more than a second, which is why the files are looked at first.
    from prefect.settings import get_current_settings

    return str(get_current_settings().home)


def _contains(path: Path, word: bytes) -> bool:
    try:
        return word in path.read_bytes().lower()
    except OSError:
        return False
