"""The command line as far as it needs no Prefect API."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.arguments import CommandOptions, verbatim
from cloudops_prefect.errors import ValidationError
from cloudops_prefect.models import ExecCommand, ExecutionResult, ExecutionStatus

PLAN = """
strategy: {type: serial}
commands:
  - command: {type: shell, command: "true"}
  - command: {type: exec, program: ls}
"""


def cloudops(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloudops_prefect", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        **options,
    )


@pytest.fixture
def plan(tmp_path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["validate", "PLAN"], ["graph", "PLAN"]]
)
def test_help_validate_and_graph_do_not_import_prefect(arguments, plan):
    code = (
        "import sys; from cloudops_prefect.cli.app import run_tokens;"
        "assert run_tokens(sys.argv[1:]) == 0; assert 'prefect' not in sys.modules"
    )
    tokens = [str(plan) if argument == "PLAN" else argument for argument in arguments]
    done = subprocess.run([sys.executable, "-c", code, *tokens], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_validate_says_what_the_plan_is(plan):
    done = cloudops("validate", plan)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{plan}: valid, 2 commands, serial\n"
    assert json.loads(cloudops("validate", "--json", plan).stdout) == {"valid": True, "commands": 2}


def test_validate_says_what_is_wrong_in_one_line(plan):
    plan.write_text(PLAN.replace("program", "progam"))
    done = cloudops("validate", plan)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert str(plan) in done.stderr
    assert "program" in done.stderr
    as_json = cloudops("validate", "--json", plan)
    assert as_json.returncode == 2
    assert json.loads(as_json.stdout)["valid"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "absent.yaml"],
        ["run", "absent.yaml"],
        ["frobnicate"],
        ["status"],
        ["status", "not-an-id"],
        ["list", "--status", "sleeping"],
        ["schema", "--plan", "--request"],
        ["exec", "--unknown-option", "--", "ls"],
        ["exec"],
        ["exec", "--timeout", "soon", "--", "ls"],
        ["exec", "--timeout", "-5s", "--", "ls"],
        ["exec", "--timeout", "0", "--", "ls"],
        ["exec", "--timeout", "1h", "--", "ls"],
        ["exec", "--env", "NAME", "--", "ls"],
        ["exec", "--tag", "=x", "--", "ls"],
        ["exec", ""],
        ["shell", ""],
        ["aws", "s3"],
        ["aws", "-x", "ls"],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments):
    done = cloudops(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_schema_prints_what_editors_read():
    assert "commands" in json.loads(cloudops("schema").stdout)["properties"]
    assert "commands" in json.loads(cloudops("schema", "--plan").stdout)["properties"]
    assert "command" in json.loads(cloudops("schema", "--request").stdout)["properties"]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("exec ls -l", "exec -- ls -l"),
        ("exec -- ls -l", "exec -- ls -l"),
        ("exec --name x --json ls --json", "exec --name x --json -- ls --json"),
        ("exec --name=x -- ls -- y", "exec --name=x -- ls -- y"),
        ("aws --region r s3 ls --recursive", "aws --region r -- s3 ls --recursive"),
        ("aws ssm get-parameter --name x", "aws -- ssm get-parameter --name x"),
        ("exec --help", "exec --help --"),
        ("shell ls --json", "shell ls --json"),
        ("", ""),
    ],
)
def test_what_follows_the_program_belongs_to_it(tokens, expected):
    assert verbatim(tokens.split()) == expected.split()


def test_the_options_make_the_request(tmp_path):
    options = CommandOptions(
        timeout="1m 30s",
        cwd=tmp_path,
        env=("A=1", "B=x=y", "C="),
        env_from=("command-environment/deploy",),
        name="listing",
        tag=("team=platform",),
        log_copy=tmp_path / "copy.log",
    )
    request = options.request(ExecCommand(program="ls"))
    assert request.timeout_ms == 90_000
    assert request.env == {"A": "1", "B": "x=y", "C": ""}
    assert request.env_from == ["command-environment/deploy"]
    assert request.metadata.tags == {"team": "platform"}
    assert (request.name, request.working_dir) == ("listing", tmp_path)
    assert request.output_log_path == tmp_path / "copy.log"


@pytest.mark.parametrize(("text", "milliseconds"), [("30s", 30_000), ("5m", 300_000), ("2", 2_000)])
def test_a_timeout_is_written_as_people_do(text, milliseconds):
    request = CommandOptions(timeout=text).request(ExecCommand(program="ls"))
    assert request.timeout_ms == milliseconds


def test_a_timeout_that_is_none_is_refused():
    with pytest.raises(ValidationError, match="--timeout"):
        CommandOptions(timeout="soon").request(ExecCommand(program="ls"))


@pytest.mark.parametrize(
    ("status", "exit_code", "error", "signal_number", "expected"),
    [
        ("completed", 0, None, None, 0),
        ("failed", 7, "Command failed with exit code 7", None, 7),
        ("failed", -15, "Command failed with exit code -15: killed by SIGTERM", None, 143),
        ("failed", -1, "Command failed with exit code -1: killed by SIGHUP", None, 129),
        ("failed", -1, "Process spawn failed: no such file", None, 127),
        ("timeout", -15, "Execution timeout after 5ms", None, 124),
        ("cancelled", -15, "Execution cancelled", None, 130),
        ("cancelled", -15, "Execution cancelled", 15, 143),
    ],
)
def test_the_exit_code_is_the_commands_own(status, exit_code, error, signal_number, expected):
    result = ExecutionResult(
        id=uuid4(),
        execution_id=uuid4(),
        status=ExecutionStatus(status),
        exit_code=exit_code,
        error=error,
    )
    assert exit_codes.of_command(result, signal_number) == expected


@pytest.mark.parametrize(
    ("duration", "text"),
    [(0.04, "0.0s"), (9.9, "9.9s"), (9.99, "10s"), (59.6, "1m 00s"), (7500, "2h 05m")],
)
def test_durations_are_short(duration, text):
    assert printing.seconds(timedelta(seconds=duration)) == text
