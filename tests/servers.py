"""Prefect servers as the tests start and stop them."""

import fcntl
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path

from cloudops_prefect.server_settings import DEFAULT_SETTINGS

# A server takes seconds to bring an empty database up to date; the next one begins with a copy.
MIGRATED = Path(__file__).parent.parent / ".pytest_cache" / f"prefect-{version('prefect')}.db"
HAS_ALL = {
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
}
"""What spares a server the look whether its database has all that it needs."""


def free_port() -> int:
    """Returns a port of this machine that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def with_migrated_database(home: Path) -> Path:
    """Puts a database that is up to date into Prefect's home, if there is one; returns its path."""
    database = home / "prefect.db"
    if MIGRATED.exists() and not database.exists():
        shutil.copy(MIGRATED, database)
    return database


def without_api(home: Path) -> dict[str, str]:
    """The environment of a program that has no configured API, for which Prefect starts one."""
    others = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CLOUDOPS_"))}
    return others | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
        "CLOUDOPS_LOG_DIR": str(home / "logs"),
    }


@contextmanager
def _migrating_once() -> Iterator[None]:
    """Lets one process at a time start a server, for as long as there is no database to copy."""
    MIGRATED.parent.mkdir(exist_ok=True)
    with MIGRATED.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if MIGRATED.exists():
            fcntl.flock(lock, fcntl.LOCK_UN)
        yield


def _keep_migrated(database: Path) -> None:
    copy = MIGRATED.with_suffix(f".{os.getpid()}")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    copy.replace(MIGRATED)


class PrefectServer:
    """A Prefect server with a home of its own, which keeps its port when it is started again.

    Args:
        home: Where its settings are, its log, and its database if that is not another.
        variables: What else it finds in its environment.
    """

    def __init__(self, home: Path, **variables: str) -> None:
        self._home = home
        self._variables = variables
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/api"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **variables: str) -> None:
        """Starts it, unless it runs; the variables are for this start alone."""
        if self._process is None:
            with _migrating_once():
                self._start(variables)

    def _start(self, variables: dict[str, str]) -> None:
        database = with_migrated_database(self._home)
        elsewhere = "PREFECT_SERVER_DATABASE_CONNECTION_URL" in self._variables
        env = os.environ | {
            "PREFECT_HOME": str(self._home),
            **DEFAULT_SETTINGS,
            **(HAS_ALL if database.exists() and not elsewhere else {}),
            # Its UI would look for the API at the port that Prefect's settings say.
            "PREFECT_SERVER_UI_API_URL": self.url,
            **self._variables,
            **variables,
        }
        module = "cloudops_prefect.server_process"
        argv = [sys.executable, "-m", module, "server", "start", "--host", "127.0.0.1"]
        with Path(self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, "--port", str(self._port)],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while not self._answers():
            assert self._process.poll() is None, Path(self._home / "server.log").read_text()
            assert time.monotonic() < deadline, "the Prefect server did not start in time"
            time.sleep(0.1)
        if database.exists() and not MIGRATED.exists():
            _keep_migrated(database)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """Ends it without a chance to record what it holds in memory."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


def send_what_is_queued() -> None:
    """Lets Prefect send the logs and events of this process, for which exit would wait in vain."""
    if "prefect.logging.handlers" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=10)
        EventsWorker.drain_all(timeout=10)
