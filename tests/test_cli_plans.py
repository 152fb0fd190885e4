"""Plans as files: a first one written, mistakes listed."""

import json
import subprocess
from pathlib import Path

import pytest

from cloudops_prefect.cli.app import run_tokens
from cloudops_prefect.planfile import load_plan

ROOT = Path(__file__).parents[1]
WRONG = """\
commands:
  - name: first
    rum: make
  - name: second
    run: "true"
    timeout_ms: 99999999
    needs: fist
"""
DEPLOY = ["deploy", "--name", "nightly", "--work-pool", "pool"]


def test_init_writes_a_plan_that_is_valid_and_overwrites_none(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_tokens(["init"]) == 0
    assert "cloudops run plan.yaml" in capsys.readouterr().out
    plan = load_plan("plan.yaml")
    assert [request.name for request in plan.commands] == ["check", "build", "test", "deploy"]
    assert plan.strategy.dependencies == {1: [0], 2: [0], 3: [1, 2]}
    assert run_tokens(["run", "--dry-run", "plan.yaml"]) == 0
    (tmp_path / "plan.yaml").write_text("mine")
    assert run_tokens(["init"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "plan.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["my $plan.yaml", "it's.yaml", "-x.yaml", "two\nlines.yaml"])
def test_what_init_says_to_run_names_the_plan_to_a_shell(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert run_tokens(["init", "--", name]) == 0
    printed = capsys.readouterr().out.partition("Run it with: ")[2].rstrip()
    comments = Path(name).read_text().split("#\n")[1].splitlines()
    lines = [printed, *(comment.removeprefix("#") for comment in comments)]
    assert len(lines) == 5
    for line in lines:
        show = f'set -- {line}; for word; do case $word in *.yaml) printf %s "$word"; esac; done'
        shown = subprocess.run(["bash", "-c", show], capture_output=True, text=True, check=True)
        assert Path(shown.stdout) == Path(name)


def test_editors_find_the_schema_of_what_init_writes_and_of_the_examples(tmp_path, capsys):
    assert run_tokens(["schema", "--plan"]) == 0
    schema = capsys.readouterr().out
    assert run_tokens(["init", str(tmp_path / "first.yaml")]) == 0
    for plan in (tmp_path / "first.yaml", *(ROOT / "examples").glob("*.yaml")):
        first = plan.read_text().splitlines()[0]
        named = first.removeprefix("# yaml-language-server: $schema=")
        assert named != first, plan
        # For the examples, after a change of the schema:
        # cloudops schema > examples/cloudops.schema.json
        assert (plan.parent / named).read_text() == schema, plan
    (tmp_path / "cloudops.schema.json").write_text("mine")
    assert run_tokens(["init", str(tmp_path / "second.yaml")]) == 0
    assert (tmp_path / "cloudops.schema.json").read_text() == "mine"


def test_init_writes_no_yaml_under_the_name_of_json(tmp_path, capsys):
    assert run_tokens(["init", str(tmp_path / "plan.json")]) == 2
    assert "plan.yaml" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_validate_lists_every_mistake(tmp_path, capsys):
    path = tmp_path / "plan.yaml"
    path.write_text(WRONG)
    assert run_tokens(["validate", str(path)]) == 2
    heading, *mistakes = capsys.readouterr().err.splitlines()
    assert heading == f"error: {len(mistakes)} mistakes in {path}"
    assert [line.split(":")[1] for line in mistakes] == sorted(
        line.split(":")[1] for line in mistakes
    )
    assert any("plan.yaml:6:17: " in line and "600000ms" in line for line in mistakes)
    assert run_tokens(["validate", "--json", str(path)]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["valid"] is False
    assert len(told["mistakes"]) == len(mistakes)
    (wrong,) = [one for one in told["mistakes"] if one["field"] == "commands[0].rum"]
    assert (wrong["file"], wrong["line"], wrong["column"]) == (str(path), 3, 5)
    assert (wrong["text"], wrong["hint"]) == ("    rum: make", "did you mean `run`?")


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"], ["graph"], DEPLOY])
def test_every_command_lists_the_mistakes_of_a_plan(command, tmp_path, capsys):
    path = tmp_path / "plan.yaml"
    path.write_text(WRONG)
    assert run_tokens(["validate", str(path)]) == 2
    mistakes = capsys.readouterr().err
    assert run_tokens([*command, str(path)]) == 2
    assert capsys.readouterr().err == mistakes
    assert run_tokens(["validate", "--json", str(path)]) == 2
    told = capsys.readouterr().out
    assert run_tokens([*command, "--json", str(path)]) == 2
    assert capsys.readouterr() == (told, "")


def test_a_timeout_that_is_too_long_is_told_with_its_place(tmp_path, capsys):
    path = tmp_path / "plan.yaml"
    path.write_text("commands:\n  - run: ls\n    timeout: 2h\n")
    for command in ("validate", "run", "graph"):
        assert run_tokens([command, str(path)]) == 2
        assert f"{path}:3:14: commands[0].timeout: " in capsys.readouterr().err


def test_a_wrong_indent_is_shown(tmp_path, capsys):
    path = tmp_path / "plan.yaml"
    path.write_text("commands:\n  - name: first\n   run: make\n")
    assert run_tokens(["validate", str(path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"error: Invalid execution plan: {path}:3:4: not YAML: ")
    assert told[1:] == ["       run: make", "       ^"]


def test_init_tells_programs_what_it_wrote(tmp_path, capsys):
    plan = tmp_path / "plan.yaml"
    assert run_tokens(["init", "--json", str(plan)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"plan": str(plan), "schema": str(tmp_path / "cloudops.schema.json")}


def test_a_file_that_cannot_be_read_is_refused_in_json_too(tmp_path, capsys):
    assert run_tokens(["validate", "--json", str(tmp_path / "absent.yaml")]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["valid"], told["mistakes"]) == (False, [])
    assert "absent.yaml" in told["error"]
