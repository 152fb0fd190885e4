"""What the command line tells of runs that have ended, from a Prefect API."""

import os
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from in_process import Cloudops

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


def test_a_run_is_drawn_with_its_states_and_its_critical_path(cloudops, run):
    drawn = cloudops("graph", run["execution_id"])
    assert drawn.returncode == 0, drawn.stderr
    assert "└── ✓ check  0." in drawn.stdout
    assert "    ├── ✗ build  0." in drawn.stdout
    assert "    │   ↓ - tell\n" in drawn.stdout
    assert "    └── ✓ lint  0." in drawn.stdout
    assert "* critical path, 0." in drawn.stdout
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
    assert "✗ Sleepy 100  1." in cloudops("graph", single["execution_id"]).stdout


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


def test_an_id_may_be_shortened_wherever_one_is_taken(cloudops, run, single):
    whole = run["execution_id"]
    for command in ("status", "result", "logs", "graph", "timeline"):
        assert cloudops(command, whole[:13]).stdout == cloudops(command, whole).stdout, command
    of_command = run["results"][0]["execution_id"]
    assert cloudops("logs", of_command[:12]).stdout == "checked\n"
    again = cloudops("cancel", single["execution_id"][:13])
    assert "Execution not running" in again.stderr


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


def test_resume_has_the_names_too(cloudops, plan, run):
    cloudops.flag.touch()
    resumed = cloudops("resume", run["execution_id"])
    cloudops.flag.unlink()
    assert resumed.returncode == 0, resumed.stderr
    assert "[build] built\n" in resumed.stdout
    assert "tell     completed  0" in resumed.stdout


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
