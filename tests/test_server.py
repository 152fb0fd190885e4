"""The local Prefect server, started for real, once for this module."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from servers import with_migrated_database

from cloudops_prefect import local_server, server

pytestmark = pytest.mark.server

CLOUDOPS = [sys.executable, "-m", "cloudops_prefect"]
OWN_PROFILE = """
active = "own"
[profiles.own]
PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE = "50"
PREFECT_UI_API_URL = "http://elsewhere.example/api"
"""
LOCK_HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Started:
    home: Path
    both: tuple[dict[str, str], dict[str, str]]

    @property
    def facts(self) -> dict[str, str]:
        return self.both[0]

    def get(self, path: str, accept: str = "*/*") -> str:
        root = self.facts["api"].removesuffix("/api")
        with urlopen(Request(root + path, headers={"Accept": accept})) as answer:
            return answer.read().decode()


def environment(home: Path, **more: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**others, "PREFECT_HOME": str(home), **more}


def until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Iterator[Started]:
    home = tmp_path_factory.mktemp("home")
    (home / "profiles.toml").write_text(OWN_PROFILE)
    with_migrated_database(home)
    env = environment(home, PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE="60")
    commands = [
        subprocess.Popen([*CLOUDOPS, "server", "start", "--json"], env=env, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        answers = [json.loads(command.communicate(timeout=300)[0]) for command in commands]
        yield Started(home, (answers[0], answers[1]))
    finally:
        subprocess.run([*CLOUDOPS, "server", "stop"], env=env, check=True, timeout=60)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def started_home(started, monkeypatch) -> Path:
    monkeypatch.setenv("PREFECT_HOME", str(started.home))
    return started.home


def test_two_commands_at_once_start_one_server(started):
    assert started.both[0] == started.both[1]
    assert started.facts["status"] == "running"


def test_it_is_found_within_milliseconds_and_without_prefect(started):
    code = (
        "import sys; from cloudops_prefect.local_server import find_running_server;"
        "print(find_running_server().pid);"
        "assert 'prefect' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(started.home),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == int(started.facts["pid"])


def test_starting_it_again_gives_the_same(started, started_home):
    assert local_server.await_local_server().pid == int(started.facts["pid"])
    assert server.start().pid == int(started.facts["pid"])


def test_it_writes_in_batches_and_the_users_own_settings_win(started):
    services = json.loads(started.get("/api/admin/settings"))["server"]["services"]
    recorder, persister = services["task_run_recorder"], services["event_persister"]
    assert (recorder["batch_size"], recorder["read_batch_size"]) == (100, 100)
    assert recorder["flush_interval"] == 1
    assert persister["batch_size"] == 50, "set in the user's profile"
    assert persister["read_batch_size"] == 60, "set in the environment"


def test_its_ui_talks_to_its_own_api(started):
    assert started.facts["ui"].endswith("/v2")
    assert "<html" in started.get("/v2/runs", accept="text/html")
    assert json.loads(started.get("/ui-settings"))["api_url"] == started.facts["api"]


def test_its_files_are_the_users_alone(started):
    for name in ("cloudops-server.log", "cloudops-server.lock"):
        assert (started.home / name).stat().st_mode & 0o777 == 0o600


def test_it_has_a_session_of_its_own(started):
    pid = int(started.facts["pid"])
    assert os.getsid(pid) == pid


def test_stop_waits_until_the_process_is_gone(started, started_home):
    stopped = server.stop()
    assert stopped is not None
    assert local_server.find_local_server() is None
    with pytest.raises(ConnectionRefusedError), socket.socket() as client:
        client.connect((local_server.HOST, stopped.port))
    assert server.stop() is None
    assert server._choose_port(local_server.server_files()) == stopped.port, (
        "the port of last time comes first"
    )


def test_a_server_that_was_killed_is_not_running(home):
    lock = home / "cloudops-server.lock"
    with subprocess.Popen(
        [sys.executable, "-c", LOCK_HOLDER, lock, local_server.PROCESS_MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        local_server.write_state(local_server.server_files(), {"pid": holder.pid, "port": 1})
        found = local_server.find_local_server()
        assert found is not None
        assert (found.pid, found.healthy) == (holder.pid, False)
        assert local_server.find_running_server() is None
        holder.send_signal(signal.SIGKILL)
        until(lambda: local_server.find_local_server() is None)


def test_a_port_that_is_taken_is_left_alone(home):
    with socket.create_server((local_server.HOST, 0)) as other:
        taken = other.getsockname()[1]
        local_server.write_state(local_server.server_files(), {"pid": 0, "port": taken})
        assert server._choose_port(local_server.server_files()) not in {0, taken}


def test_a_server_that_ends_while_it_starts_is_reported_with_its_log(home):
    env = environment(home, PREFECT_SERVER_DATABASE_CONNECTION_URL="nonsense://nowhere")
    done = subprocess.run(
        [*CLOUDOPS, "server", "start"], env=env, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: The local Prefect server ended while it started")
    assert "nonsense" in done.stderr
    assert local_server.find_local_server() is None
