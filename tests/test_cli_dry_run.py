"""What a plan would run, told without starting anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloudops_prefect.cli.app import run_tokens

PLAN = """
description: Release
commands:
  - name: last
    run: echo $API_TOKEN > started
    env: {API_TOKEN: hunter2-hunter2, REGION: eu}
    needs: first
  - name: first
    exec: [echo, hunter2-hunter2, "a b"]
    env: {API_TOKEN: hunter2-hunter2}
    env_from: [command-environment/deploy]
    timeout_ms: 5000
  - name: made later
    script: later/made.py
    needs: [first, last]
  - exec: [no-such-program]
    needs: first
"""


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def test_it_tells_what_would_run_in_order(plan, tmp_path, capsys):
    assert run_tokens(["run", "--dry-run", "--json", str(plan)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["plan"] == "Release"
    first, last, made, missing = (command for command in told["commands"])
    assert [one["index"] for one in told["commands"]] == [1, 0, 2, 3]
    assert first["argv"] == ["echo", "********", "a b"]
    assert (first["timeout_ms"], first["env_from"]) == (5000, ["command-environment/deploy"])
    assert last["argv"] == ["bash", "-c", "echo $API_TOKEN > started"]
    assert (last["env"], last["after"]) == (["API_TOKEN", "REGION"], [1])
    assert last["working_dir"] == str(tmp_path)
    assert made["note"] == "the script is not there yet"
    assert missing["note"] == "there is no program no-such-program here"


def test_people_read_it_without_secrets_and_nothing_is_started(plan, tmp_path, capsys):
    assert run_tokens(["run", "--dry-run", str(plan)]) == 0
    told = capsys.readouterr().out
    assert "Release: 4 commands, dependency graph; nothing is started\n" in told
    assert "  1. first\n     runs     echo '********' 'a b'\n" in told
    assert "  2. last  (after first)\n" in told
    assert "hunter2" not in told
    assert not (tmp_path / "started").exists()


def test_several_lines_stay_readable(tmp_path, capsys):
    path = tmp_path / "plan.json"
    command = {"type": "shell", "command": "one\n\x1b[2Jtwo"}
    path.write_text(json.dumps({"commands": [{"command": command}]}))
    assert run_tokens(["run", "--dry-run", str(path)]) == 0
    told = capsys.readouterr().out
    assert "     runs     bash -c 'one\n              \\x1b[2Jtwo'\n" in told


def test_it_refuses_what_a_run_would_refuse(plan, capsys):
    plan.write_text("commands: [{script: absent.sh}]")
    assert run_tokens(["run", "--dry-run", str(plan)]) == 2
    assert "Script file not found" in capsys.readouterr().err


def test_it_needs_no_prefect(plan):
    code = (
        "import sys; from cloudops_prefect.cli.app import run_tokens;"
        "assert run_tokens(sys.argv[1:]) == 0; assert 'prefect' not in sys.modules"
    )
    argv = [sys.executable, "-c", code, "run", "--dry-run", str(plan)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_part_of_it_shows_a_secret(plan, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:of-the-api")
    (tmp_path / "in-hunter2-hunter2").mkdir()
    plan.write_text(
        """
        description: admin:of-the-api
        commands:
          - exec: [./hunter2-hunter2, admin:of-the-api]
            env: {API_TOKEN: hunter2-hunter2}
            working_dir: in-hunter2-hunter2
        """
    )
    for options in ([], ["--json"]):
        assert run_tokens(["run", "--dry-run", *options, str(plan)]) == 0
        told = capsys.readouterr().out
        assert "there is no program ./******** here" in told
        assert "in-********" in told
        assert "hunter2" not in told
        assert "admin" not in told


@pytest.mark.parametrize("what", ["run: ls", "script: a.sh", "exec: [./a]"])
def test_a_directory_that_is_made_meanwhile_is_noted(plan, tmp_path, capsys, what):
    plan.write_text(f"commands: [{{run: mkdir made}}, {{{what}, working_dir: made}}]")
    assert run_tokens(["run", "--dry-run", str(plan)]) == 0
    assert capsys.readouterr().out.endswith("     note     the directory is not there yet\n")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.sh").touch()
    (tmp_path / "made" / "a").touch()
    assert run_tokens(["run", "--dry-run", str(plan)]) == 0
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "count", "is_cut"), [(5, 5, True), (5, 2, False), (2, 5, False), (None, 5, False)]
)
def test_a_bound_above_that_of_the_settings_is_noted(
    *, plan, monkeypatch, capsys, asked, count, is_cut
):
    monkeypatch.setenv("CLOUDOPS_MAX_CONCURRENT_EXECUTIONS", "2")
    strategy = {"type": "parallel", "max_concurrency": asked}
    plan.write_text(json.dumps({"strategy": strategy, "commands": [{"run": "true"}] * count}))
    note = "max_concurrency 5: at most 2 at once here; CLOUDOPS_MAX_CONCURRENT_EXECUTIONS raises"
    assert run_tokens(["run", "--dry-run", str(plan)]) == 0
    assert (f"\nnote: {note} that\n" in capsys.readouterr().out) == is_cut
    assert run_tokens(["run", "--dry-run", "--json", str(plan)]) == 0
    assert (json.loads(capsys.readouterr().out)["note"] == f"{note} that") == is_cut
