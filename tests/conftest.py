import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory) -> Iterator[str]:
    """A Prefect server of the session's own; its address."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    }
    argv = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    with Path(home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, "--port", str(port)], env=env, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        deadline = time.monotonic() + 60
        while not _answers(f"{url}/health"):
            assert process.poll() is None, Path(home / "server.log").read_text()
            assert time.monotonic() < deadline, "the Prefect server did not start in time"
            time.sleep(0.1)
        yield url
    finally:
        _send_what_is_queued()
        process.terminate()
        process.wait(20)


@pytest.fixture
def api(prefect_api) -> Iterator[str]:
    """The session's Prefect server, as the one that is configured."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api


@pytest.fixture
def config(tmp_path):
    """Logs of the test's own, and little patience with what won't stop."""
    from cloudops_prefect import ExecutionConfig

    return ExecutionConfig(log_dir=tmp_path / "logs", grace_period_ms=1000)


def _send_what_is_queued() -> None:
    """Lets Prefect send the logs and events of this process, for which exit would wait in vain."""
    if "prefect.logging.handlers" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=10)
        EventsWorker.drain_all(timeout=10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
