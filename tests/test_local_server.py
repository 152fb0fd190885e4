"""One local server: Python uses the one that the command line has started, and no other."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from pwd import getpwuid
from threading import Thread

import pytest
from prefect.context import AsyncClientContext, use_profile
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    Profile,
    get_current_settings,
    temporary_settings,
)
from servers import free_port, with_migrated_database

from cloudops_prefect import local_server, server
from cloudops_prefect.api_errors import api_complaint
from cloudops_prefect.local_api import (
    choose_local_server,
    local_api,
    prefect_command,
    ui_url,
    use_local_server,
)
from cloudops_prefect.local_server import (
    PROCESS_MODULE,
    LocalServer,
    find_local_server,
    is_local_address,
    prefect_home,
    server_files,
    write_state,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]

CLOUDOPS = [sys.executable, "-m", "cloudops_prefect"]
NOWHERE = "http://127.0.0.1:9/api"
NOBODY = 65534
SCRIPT = """
import asyncio, json, os, sys
from cloudops_prefect import (
    ExecutionEngine, ExecutionPlan, ExecutionRequest, ShellCommand, compile_plan, run_command,
)

def request(name):
    return ExecutionRequest(name=name, command=ShellCommand(command='echo "<$PREFECT_API_URL>"'))

async def main():
    engine = ExecutionEngine()
    async with engine:
        execution_id = await engine.execute(request("by an engine"))
        result = await engine.wait(execution_id, timeout=60)
    plan = ExecutionPlan(description="compiled and called", commands=[request("one")])
    await compile_plan(plan)()
    await run_command(request("a called flow"))
    print(json.dumps({
        "stdout": result.stdout,
        "link": engine.ui_url(execution_id),
        "environment": os.environ.get("PREFECT_API_URL"),
        "started a server": "prefect.server" in sys.modules,
    }))

asyncio.run(main())
"""
LOCK_HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Home:
    """Prefect's home with a local server that runs."""

    path: Path
    url: str
    env: dict[str, str]

    def __call__(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, env=self.env | env, cwd=self.path, capture_output=True, text=True, timeout=120
        )

    @property
    def server(self) -> LocalServer:
        found = find_local_server(self.path)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Iterator[Home]:
    home = tmp_path_factory.mktemp("home")
    with_migrated_database(home)
    others = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CLOUDOPS_"))}
    env = others | {"PREFECT_HOME": str(home), "CLOUDOPS_LOG_DIR": str(home / "logs")}
    start = [*CLOUDOPS, "server", "start", "--json"]
    done = subprocess.run(start, env=env, capture_output=True, text=True, timeout=300, check=True)
    try:
        yield Home(home, json.loads(done.stdout)["api"], env)
    finally:
        subprocess.run([*CLOUDOPS, "server", "stop"], env=env, check=True, timeout=60)


@pytest.fixture
def unconfigured(local) -> Iterator[None]:
    """Prefect's settings with the home of the local server and without an API."""
    with temporary_settings({PREFECT_HOME: local.path}, restore_defaults={PREFECT_API_URL}):
        yield


@contextmanager
def held(home: Path, *, port: int) -> Iterator[None]:
    """Holds the lock of a local server that does not listen."""
    argv = [sys.executable, "-c", LOCK_HOLDER, server_files(home).lock, PROCESS_MODULE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        write_state(server_files(home), {"pid": holder.pid, "port": port})
        try:
            yield
        finally:
            holder.kill()


def test_what_a_script_runs_is_what_the_command_line_lists(local):
    done = local(sys.executable, "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["link"].startswith(f"{local.server.ui_url}/runs/flow-run/")
    assert not told["started a server"]
    # Neither the program nor its commands find another environment than before.
    assert (told["environment"], told["stdout"]) == (None, "<>\n")
    listed = local(*CLOUDOPS, "list", "--json")
    names = [one["name"] for one in json.loads(listed.stdout)]
    assert names == ["a called flow", "compiled and called", "by an engine"]


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_an_api_that_is_configured_wins(local, where, tmp_path):
    profiles = tmp_path / "profiles.toml"
    address = f'PREFECT_API_URL = "{NOWHERE}"' if where == "profile" else ""
    profiles.write_text(f'active = "own"\n[profiles.own]\n{address}\n')
    env = {"PREFECT_API_URL": NOWHERE} if where == "environment" else {}
    done = local(sys.executable, "-c", SCRIPT, PREFECT_PROFILES_PATH=str(profiles), **env)
    assert done.returncode != 0
    assert f"the Prefect API at {NOWHERE} does not answer" in done.stderr


async def test_a_run_in_a_run_stays_at_its_server(local, unconfigured, prefect_api):
    async with local_api():
        assert get_current_settings().api.url == local.url
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        used = await AsyncClientContext().__aenter__()
    async with local_api():
        assert get_current_settings().api.url is None
    await used.__aexit__(None, None, None)


def test_the_server_of_another_home_is_none_of_ours(unconfigured, tmp_path):
    assert choose_local_server() is not None
    with temporary_settings({PREFECT_HOME: tmp_path}):
        assert choose_local_server() is None


@pytest.mark.parametrize("file", [".env", "prefect.toml", "pyproject.toml"])
def test_the_home_is_the_one_that_prefect_has(file, tmp_path, monkeypatch):
    home = tmp_path / "elsewhere"
    content = {
        ".env": f"PREFECT_HOME={home}\n",
        "prefect.toml": f'home = "{home}"\n',
        "pyproject.toml": f'[tool.prefect]\nhome = "{home}"\n',
    }
    (tmp_path / file).write_text(content[file])
    code = "from cloudops_prefect.local_server import prefect_home; print(prefect_home())"
    env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout == f"{home}\n", done.stderr
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert prefect_home() == tmp_path


def test_who_names_another_database_does_not_get_the_local_servers(local, unconfigured, tmp_path):
    other = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: other}):
        assert choose_local_server() is None


def test_a_server_that_hangs_is_not_used_and_said_to_hang(local, unconfigured, monkeypatch, caplog):
    monkeypatch.setattr(local_server, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(local_server, "HEALTH_TIMEOUT_SECONDS", 0.5)
    pid = local.server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert local.server.phase == "unresponsive"
        assert choose_local_server() is None
        assert f"(process {pid}) does not answer: a temporary server" in caplog.text
        with temporary_settings({PREFECT_API_URL: local.url}):
            told = api_complaint(RuntimeError("Failed to reach API at x"))
        assert told is not None
        assert told.endswith(
            f"at {local.url} does not answer (process {pid}); "
            "to start it again: cloudops server stop && cloudops server start"
        )
        monkeypatch.setenv("PREFECT_HOME", str(local.path))
        with pytest.raises(server.LocalServerError, match="to end it: cloudops server stop"):
            server.start()
    finally:
        os.kill(pid, signal.SIGCONT)


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_) -> None:
        """Prints nothing."""


@contextmanager
def another_server() -> Iterator[int]:
    """A server that answers as a healthy Prefect server does; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        yield other.server_port
        other.shutdown()


def test_another_server_at_its_port_is_not_taken_for_it(tmp_path):
    with another_server() as port, held(tmp_path, port=port):
        found = find_local_server(tmp_path)
        assert found is not None
        assert found.phase == "starting"


def test_a_process_that_is_no_server_is_not_taken_for_one(tmp_path):
    with held(tmp_path, port=1):
        write_state(server_files(tmp_path), {"pid": os.getpid(), "port": 1})
        assert find_local_server(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"pid": 1}', '{"pid": "x", "port": 1}'])
def test_a_broken_state_is_no_server(tmp_path, content):
    with held(tmp_path, port=1):
        server_files(tmp_path).state.write_text(content)
        assert find_local_server(tmp_path) is None


def test_the_server_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    user = getpwuid(os.geteuid()).pw_name
    with held(tmp_path, port=1):
        assert find_local_server() is not None
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        assert find_local_server() is None
        with pytest.raises(server.LocalServerError, match=f"of the user {user}: set PREFECT_HOME"):
            server.start()


def test_a_server_of_another_machine_is_said_to_be_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with held(tmp_path, port=1):
        write_state(server_files(tmp_path), {"pid": os.getpid(), "port": 1})
        with pytest.raises(server.LocalServerError, match="that is not on this machine"):
            server.start()


@pytest.mark.parametrize(
    ("url", "is_it"),
    [
        ("http://127.0.0.1:4321/api", True),
        ("http://localhost:4321/api/", True),
        ("http://127.0.0.1:4200/api", False),
        ("https://127.0.0.1:4321/api", False),
        ("http://prefect.example.com:4321/api", False),
        ("http://127.0.0.1:4321/other/api", False),
        ("http://127.0.0.1:port/api", False),
        ("", False),
    ],
)
def test_its_address_is_known_also_while_it_does_not_run(tmp_path, url, is_it):
    assert not is_local_address(url, tmp_path)
    write_state(server_files(tmp_path), {"pid": 1, "port": 4321})
    assert is_local_address(url, tmp_path) is is_it


def test_links_are_the_same_whether_its_address_is_configured_or_not(local, unconfigured):
    execution_id = "00000000-0000-0000-0000-000000000001"
    link = f"{local.server.ui_url}/runs/flow-run/{execution_id}"
    with use_local_server(local.server):
        assert ui_url("flow-run", execution_id) == link
    for url in (local.url, local.url.replace("127.0.0.1", "localhost")):
        with temporary_settings({PREFECT_API_URL: url}):
            assert (
                ui_url("flow-run", execution_id).partition("/v2/")[2] == link.partition("/v2/")[2]
            )
    with temporary_settings({PREFECT_API_URL: "http://prefect.example.com:4200/api"}):
        assert "/v2" not in ui_url("flow-run", execution_id)
    assert ui_url("flow-run", execution_id) == ""


def test_a_command_line_with_its_address_prints_the_same_links(local):
    done = local(*CLOUDOPS, "shell", "true", PREFECT_API_URL=local.url)
    assert f"UI: {local.server.ui_url}/runs/flow-run/" in done.stderr


@pytest.mark.parametrize("arguments", [["run", "plan.yaml"], ["list"], ["doctor"]])
def test_who_has_configured_it_while_it_is_stopped_is_told_to_start_it(local, tmp_path, arguments):
    (tmp_path / "plan.yaml").write_text("commands: [run: echo hi]")
    port = free_port()
    write_state(server_files(tmp_path), {"pid": 1, "port": port})
    done = subprocess.run(
        [*CLOUDOPS, *arguments],
        env=local.env
        | {"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert f"the local Prefect server at http://127.0.0.1:{port}/api is not running" in told
    assert "to start it: cloudops server start\n" in told


def test_the_address_that_a_first_server_would_get_is_told_how_to_start_it(tmp_path):
    url = f"http://127.0.0.1:{local_server.DEFAULT_PORT}/api"
    with temporary_settings({PREFECT_HOME: tmp_path, PREFECT_API_URL: url}):
        told = api_complaint(RuntimeError("Failed to reach API at x"))
    assert told is not None
    assert told.endswith("is PREFECT_API_URL right? To start a local server: cloudops server start")


def test_an_address_of_the_ui_that_is_set_stays(local, unconfigured):
    with (
        use_profile(
            Profile(name="own", settings={"PREFECT_UI_URL": "https://ui.example.com"}),
            override_environment_variables=True,
        ),
        use_local_server(local.server),
    ):
        link = ui_url("flow-run", "00000000-0000-0000-0000-000000000001")
    assert link.startswith("https://ui.example.com/runs/")


def test_a_hint_has_the_address_only_where_prefect_would_not_find_it(local):
    with use_local_server(local.server):
        assert prefect_command("version") == ('eval "$(cloudops server env)"; prefect version')
    assert prefect_command("version") == "prefect version"
