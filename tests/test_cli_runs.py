"""What the command line tells of runs that have ended, from a Prefect API."""

import os
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest
from in_process import Cloudops
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from cloudops_prefect import execution_list, run_plan
from cloudops_prefect.cli.run_facts import facts_of_run

pytestmark = pytest.mark.server

PLAN = """
description: Roll out {tag}
metadata: {{tags: {{batch: {tag}}}}}
commands:
  - {{name: check, run: echo checked; sleep 0.2}}
  - {{name: build, run: 'echo built; test -e {flag}', needs: check}}
  - {{name: tell, run: echo told, needs: build}}
  - {{name: lint, run: echo linted, needs: check}}
"""
LARGE_COMMAND = f"  - {{run: echo large, env: {{PADDING: {'x' * 100_000}}}}}\n"


@dataclass(frozen=True)
class Tagged(Cloudops):
    """Its runs have a tag of their own."""

    tag: str
    flag: Path

    def found(self, *arguments: object) -> list[str]:
        return [one["name"] for one in self.json("list", "--tag", f"batch={self.tag}", *arguments)]


@pytest.fixture(scope="module")
def cloudops(prefect_api, tmp_path_factory) -> Tagged:
    home = tmp_path_factory.mktemp("runs")
    return Tagged(prefect_api, home / "logs", uuid4().hex[:8], home / "flag")


@pytest.fixture(scope="module")
def plan(cloudops, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.yaml"
    path.write_text(PLAN.format(tag=cloudops.tag, flag=cloudops.flag))
    return path


@pytest.fixture(scope="module")
def run(cloudops, plan) -> dict:
    """How the plan ended: check and lint completed, build failed, tell did not run."""
    return cloudops.json("run", plan)


@pytest.fixture(scope="module")
def single(cloudops) -> dict:
    """A command that timed out."""
    options = ["--tag", f"batch={cloudops.tag}", "--name", "Sleepy 100", "--timeout", "1s"]
    return cloudops.json("shell", *options, "sleep 60")


def schedule_runs(api: str, count: int) -> list[UUID]:
    """Creates runs of a plan that are due in an hour, as schedules do."""

    async def create() -> list[UUID]:
        async with get_client() as client:
            due = datetime.now(UTC) + timedelta(hours=1)
            plan = {"commands": [{"command": {"type": "shell", "command": "true"}}]}
            runs = [
                await client.create_flow_run(
                    run_plan, parameters={"plan": plan}, state=Scheduled(scheduled_time=due)
                )
                for _ in range(count)
            ]
        return [run.id for run in runs]

    with temporary_settings({PREFECT_API_URL: api}):
        return anyio.run(create)


def test_a_run_is_drawn_with_its_states_and_its_critical_path(cloudops, run):
    drawn = cloudops("graph", run["execution_id"])
    assert drawn.returncode == 0, drawn.stderr
    assert re.search(r"└── ✓ check  \d", drawn.stdout)
    assert re.search(r"    ├── ✗ build  \d", drawn.stdout)
    assert "    │   ↓ - tell\n" in drawn.stdout
    assert re.search(r"    └── ✓ lint  \d", drawn.stdout)
    assert re.search(r"\* critical path, \d", drawn.stdout)
    document = cloudops.json("graph", run["execution_id"])
    states = [command["status"] for command in document["commands"]]
    assert states == ["completed", "failed", "cancelled", "completed"]
    assert document["critical_path"][0] == 0


def test_the_timeline_of_a_run(cloudops, run):
    lines = cloudops("timeline", run["execution_id"]).stdout.splitlines()
    assert lines[2].startswith("check  ████")
    assert any(line.startswith("build") and line.endswith("failed") for line in lines)
    assert lines[-1] == "did not run: tell"


def test_a_single_command_is_drawn_too(cloudops, single):
    drawn = cloudops("graph", single["execution_id"]).stdout
    assert re.search(r"✗ Sleepy 100  [1-9]", drawn)


def test_names_come_from_the_plan_of_the_run(cloudops, run):
    told = cloudops("result", run["execution_id"]).stdout
    assert [line.split()[:2] for line in told.splitlines()[1:5]] == [
        ["check", "completed"],
        ["build", "failed"],
        ["tell", "cancelled"],
        ["lint", "completed"],
    ]
    followed = cloudops("logs", "-f", run["execution_id"]).stdout.splitlines()
    assert {"[check] checked", "[build] built", "[lint] linted"} <= {*followed}


def test_one_command_of_a_plan_is_told_with_its_own_address(cloudops, run):
    build = run["results"][1]["execution_id"]
    assert cloudops.json("result", build)["exit_code"] == 1
    told = cloudops("result", build).stdout
    assert re.search(r"^stdout:\nbuilt$", told, re.MULTILINE)
    assert told.endswith(f"/runs/task-run/{build}\n")
    watched = cloudops("watch", build)
    assert (watched.returncode, watched.stdout) == (1, "built\n")
    assert watched.stderr.startswith("failed: Command failed with exit code 1\n")
    assert watched.stderr.endswith(f"/runs/task-run/{build}\n")


def test_who_watches_chooses_what_is_printed(cloudops, run, single):
    plan, command = run["execution_id"], single["execution_id"]
    quiet = cloudops("watch", "--quiet", plan)
    assert quiet.returncode == 1
    assert quiet.stdout == cloudops("result", plan).stdout
    assert cloudops.json("watch", plan) == cloudops.json("result", plan)
    quiet = cloudops("watch", "--quiet", command)
    assert (quiet.returncode, quiet.stdout) == (124, "")
    assert quiet.stderr.startswith("timeout: Execution timeout after 1000ms\nUI: ")
    assert cloudops.json("watch", command) == cloudops.json("result", command)


def test_an_id_may_be_shortened_wherever_one_is_taken(cloudops, run, single):
    whole = run["execution_id"]
    for command in ("status", "result", "logs", "graph", "timeline"):
        assert cloudops(command, whole[:13]).stdout == cloudops(command, whole).stdout, command
    of_command = run["results"][0]["execution_id"]
    assert cloudops("logs", of_command[:12]).stdout == "checked\n"
    again = cloudops("cancel", single["execution_id"][:13])
    assert "Execution not running" in again.stderr


def test_last_is_the_newest_run_wherever_an_id_is_taken(cloudops, tmp_path):
    flag = tmp_path / "flag"
    newest = cloudops.json("shell", f"echo newest; test -e {flag}")["execution_id"]
    commands = [["status"], ["result"], ["logs"], ["logs", "-f"], ["graph"], ["timeline"]]
    for command in [*commands, ["watch", "--quiet"]]:
        named, last = cloudops(*command, newest), cloudops(*command, "last")
        assert (named.stdout, named.stderr) == (last.stdout, last.stderr), command
    assert cloudops.json("status", "last") == {"id": newest, "status": "failed"}
    assert f"Execution not running: {newest}" in cloudops("cancel", "last").stderr
    flag.touch()
    assert cloudops.json("resume", "last")["execution_id"] == newest
    assert cloudops("status", "last").stdout == "completed\n"


def test_last_of_nothing_is_not_found(cloudops, monkeypatch):
    # A flow that has no runs at the tests' server.
    monkeypatch.setattr(execution_list, "_FLOWS", FlowFilter(name=FlowFilterName(any_=["none"])))
    done = cloudops("status", "last")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: Execution not found: last, since nothing has run yet\n"


def test_ls_is_list(cloudops, run, single):
    options = ["--tag", f"batch={cloudops.tag}"]
    assert cloudops("ls", *options).stdout == cloudops("list", *options).stdout


def test_a_beginning_of_several_ids_names_them(cloudops, tmp_path):
    # Of 16 digits and more ids than that, one is taken twice.
    path = tmp_path / "plan.yaml"
    path.write_text("strategy: parallel\ncommands:\n" + "  - run: true 1\n" * 17)
    ids = [one["execution_id"] for one in cloudops.json("run", path)["results"]]
    digit = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    done = cloudops("status", digit)
    assert done.returncode == 2
    assert f"ids begin with {digit}" in done.stderr
    assert all(line.startswith(f"  {digit}") for line in done.stderr.splitlines()[1:11])


def test_a_beginning_of_no_id_is_not_found(cloudops, run):
    done = cloudops("status", uuid4())
    assert (done.returncode, cloudops("status", uuid4().hex[:30]).returncode) == (1, 1)


def test_lists_are_narrowed(cloudops, run, single):
    plan_name = f"Roll out {cloudops.tag}"
    assert cloudops.found() == ["Sleepy 100", plan_name]
    assert cloudops.found("--status", "timeout") == ["Sleepy 100"]
    assert cloudops.found("--status", "failed") == [plan_name]
    assert cloudops.found("--search", "sleepy") == ["Sleepy 100"]
    assert cloudops.found("--since", "1h") == ["Sleepy 100", plan_name]
    assert cloudops.found("--since", "0s") == []
    assert cloudops.found("--since", "2020-01-01", "--limit", "1") == ["Sleepy 100"]
    assert cloudops.found("--limit", "1", "--page", "2") == [plan_name]
    assert cloudops.found("--tag", "other") == []
    # More than the API gives at once.
    assert cloudops.found("--limit", "201") == ["Sleepy 100", plan_name]


def test_a_result_as_json_has_the_names_too(cloudops, run):
    results = cloudops.json("result", run["execution_id"])["results"]
    assert [one["name"] for one in results] == ["check", "build", "tell", "lint"]


def test_a_plan_is_found_by_the_names_of_its_commands(cloudops, run, single):
    plan_name = f"Roll out {cloudops.tag}"
    for command in ("check", "LINT", "tell"):
        assert cloudops.found("--search", command) == [plan_name], command
    assert cloudops.found("--search", "echo") == []
    # By its own name and that of a command: once, and in order.
    named = cloudops.json("shell", "--name", "lint", "--tag", f"batch={cloudops.tag}", "true")
    assert named["status"] == "completed"
    assert cloudops.found("--search", "l") == ["lint", "Sleepy 100", plan_name]
    pages = [cloudops.found("--search", "l", "--limit", "1", "--page", str(n)) for n in range(1, 5)]
    assert pages == [["lint"], ["Sleepy 100"], [plan_name], []]
    assert cloudops.found("--search", "check", "--status", "completed") == []
    assert cloudops.found("--search", "check", "--status", "failed") == [plan_name]


def test_resume_has_the_names_too(cloudops, plan, run):
    cloudops.flag.touch()
    resumed = cloudops("resume", run["execution_id"])
    cloudops.flag.unlink()
    assert resumed.returncode == 0, resumed.stderr
    assert "[build] built\n" in resumed.stdout
    assert "tell     completed  0" in resumed.stdout
    # What had completed has the id that it had at the first attempt.
    for one in run["results"][0], run["results"][1]:
        identifier = one["execution_id"]
        assert cloudops("status", identifier[:12]).stdout == cloudops("status", identifier).stdout


def test_old_logs_are_pruned_but_for_those_that_failed(cloudops, plan):
    results = cloudops.json("run", plan)["results"]
    check, build, _, lint = (cloudops.log_dir / f"{one['execution_id']}.log" for one in results)
    for path in cloudops.log_dir.iterdir():
        os.utime(path, (0, 0))
    os.utime(lint, None)
    told = cloudops.json("logs", "prune", "--older-than", "30d", "--keep-failed")
    assert results[1]["execution_id"] in told["kept"]
    assert results[0]["execution_id"] in told["executions"]
    assert [path.exists() for path in (check, build, lint)] == [False, True, True]
    plain = cloudops("logs", "prune", "--older-than", "30d")
    assert plain.stdout.startswith("Removed the logs of ")
    assert [path.exists() for path in (check, build, lint)] == [False, False, True]


def test_what_is_scheduled_hides_no_shortened_id(cloudops, monkeypatch):
    identifier = cloudops.json("shell", "true")["execution_id"]
    monkeypatch.setattr("cloudops_prefect.cli.api._PAGE", 2)
    monkeypatch.setattr("cloudops_prefect.cli.api.SEARCHED", 2)
    schedule_runs(cloudops.api, 3)
    assert cloudops("status", identifier[:8]).stdout == "completed\n"
    unknown = cloudops("status", uuid4().hex[:30])
    assert unknown.returncode == 2
    assert "the newest 2 executions" in unknown.stderr


def test_the_commands_of_a_large_plan_have_shortened_ids_too(cloudops, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(f"commands:\n{3 * LARGE_COMMAND}")
    for command in cloudops.json("run", path)["results"]:
        assert cloudops("logs", command["execution_id"][:12]).stdout == "large\n"


def test_a_quiet_resume_of_a_command_tells_how_it_ended(cloudops, tmp_path, monkeypatch):
    # What still waits at the second look is told of too.
    monkeypatch.setattr("cloudops_prefect.cli.watching._INTERVAL", 3600)
    flag = tmp_path / "flag"
    failed = cloudops.json("shell", f"echo ran; test -e {flag}")
    flag.touch()
    resumed = cloudops("resume", "--quiet", failed["execution_id"])
    assert (resumed.returncode, resumed.stdout) == (0, "")
    assert re.match(r"completed in \d", resumed.stderr)


def test_lists_say_that_there_is_nothing_and_that_there_is_more(cloudops, run, single):
    nothing = cloudops("list", "--tag", f"batch={uuid4()}")
    assert (nothing.stdout, nothing.stderr) == ("", "No execution is like that\n")
    more = cloudops("list", "--tag", f"batch={cloudops.tag}", "--limit", "1")
    assert more.stderr == "There are more: --page 2\n"


def test_a_tag_without_a_value_is_found(cloudops):
    identifier = cloudops.json("shell", "--tag", f"{cloudops.tag}=", "true")["execution_id"]
    assert [one["id"] for one in cloudops.json("list", "--tag", f"{cloudops.tag}=")] == [identifier]


def test_what_a_run_waits_for_is_known(cloudops):
    (waiting,) = schedule_runs(cloudops.api, 1)
    with temporary_settings({PREFECT_API_URL: cloudops.api}):
        facts = anyio.run(facts_of_run, waiting)
    assert facts.waits_for == "It is still pending and waits for its turn"


def test_an_api_that_is_silent_is_told_of_soon(tmp_path, monkeypatch):
    monkeypatch.setattr("cloudops_prefect.api_errors.ANSWER_TIMEOUT_SECONDS", 0.5)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        done = Cloudops(url, tmp_path)("list")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: IO error: the Prefect API at {url} does not answer")
