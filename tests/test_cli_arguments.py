"""The command line as far as it needs no Prefect API."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import anyio
import pytest
from cyclopts import App
from engines import until
from in_process import run_captured

from cloudops_prefect import api_timeout
from cloudops_prefect.cli import exit_codes, printing
from cloudops_prefect.cli.app import app
from cloudops_prefect.cli.arguments import CommandOptions, verbatim
from cloudops_prefect.cli.following import Interruption, follow, impatient
from cloudops_prefect.cli.summary import plan_summary
from cloudops_prefect.control import RunControl
from cloudops_prefect.errors import ExecutionIOError, ValidationError
from cloudops_prefect.models import (
    ExecCommand,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    ExecutionSummary,
    PlanExecutionResult,
)

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
    told = json.loads(cloudops("validate", "--json", plan).stdout)
    assert told == {"valid": True, "commands": 2, "warnings": []}


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list", "--jsn"], "Did you mean --json? See `cloudops list --help`."),
        (["frobnicate"], "See `cloudops --help`."),
        (
            ["server", "start", "now"],
            "Unexpected argument: now. See `cloudops server start --help`.",
        ),
        (["shell", "make", "test"], "argument: test. Put the whole line in quotes. See"),
        (["shell", "--timeout", "1h", "ls"], "600000ms; CLOUDOPS_MAX_TIMEOUT_MS raises that"),
    ],
)
def test_who_is_refused_is_told_what_to_do(arguments, told):
    assert told in run_captured(*arguments).stderr


def test_every_command_and_everything_that_it_takes_has_a_help():
    for command in _commands_below(app):
        assert command.help, command.name
        if command.default_command is not None:
            taken = command.assemble_argument_collection(parse_docstring=True)
            assert [one.name for one in taken if one.show and not one.parameter.help] == []


def _commands_below(outer: App) -> Iterator[App]:
    for name in outer.resolved_commands():
        if not name.startswith("-"):
            yield outer[name]
            yield from _commands_below(outer[name])


def test_a_plan_is_read_from_standard_input(plan):
    done = cloudops("run", "--dry-run", "-", input=plan.read_text())
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 commands" in done.stdout
    refused = cloudops("validate", "-", input="commands: []")
    assert refused.returncode == 2
    assert "/dev/stdin:1:11: " in refused.stderr


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


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        (["status", "no-id", "--json"], "ValidationError", exit_codes.BAD_INPUT),
        (["list", "--json", "--since", "yesterday"], "ValidationError", exit_codes.BAD_INPUT),
        (["lsit", "--json"], "UnknownCommandError", exit_codes.BAD_INPUT),
        (["graph", "plan.yaml", "--json"], "InvalidPlanError", exit_codes.BAD_INPUT),
    ],
)
def test_an_error_is_json_where_json_is_asked_for(arguments, error, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_captured(*arguments)
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["type"]) == (code, "", error)
    assert told["error"]


def test_ctrl_c_while_it_is_being_imported_is_no_traceback():
    code = """
import os, signal, sys
def interrupt(event, arguments):
    if event == "import" and arguments[0] == "cyclopts":
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(interrupt)
from cloudops_prefect.cli import main
main()
"""
    argv = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_json_behind_two_dashes_is_not_asked_of_us():
    done = run_captured("exec", "--env", "no-equals", "--", "ls", "--json")
    assert (done.returncode, done.stdout) == (exit_codes.BAD_INPUT, "")
    assert done.stderr == "error: Validation error: --env wants NAME=VALUE, not 'no-equals'\n"


@pytest.fixture
def summary() -> ExecutionSummary:
    return ExecutionSummary(
        id=uuid4(),
        status=ExecutionStatus.COMPLETED,
        started_at=datetime.now(UTC),
        kind="plan",
        name="a name that is longer than what is left of a narrow screen",
    )


@pytest.mark.parametrize("width", [40, 60])
def test_a_list_has_one_line_for_each_on_a_narrow_screen(width, summary, monkeypatch, capsys):
    monkeypatch.setattr(printing, "on_screen", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    printing.executions([summary])
    _, row = capsys.readouterr().out.splitlines()
    assert row.startswith(f"{str(summary.id)[:8]}  completed  ")
    assert re.search(r" a .*…$", row)
    assert len(row) == width


def test_a_list_in_a_pipe_is_whole_and_has_no_blanks_at_the_end(summary, capsys):
    printing.executions([summary, summary.model_copy(update={"name": "short"})])
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert first.endswith(f"  {summary.name}")
    assert second.endswith("  short")


class DeadApi:
    async def read_flow_run(self, _):
        raise ConnectionError


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(api_timeout, "ANSWER_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(api_timeout, "LOOK_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(api_timeout, "INSISTENCE", 0.01)


@pytest.mark.anyio
async def test_a_run_that_is_over_waits_a_bounded_time_for_an_api_that_is_gone(
    soon, monkeypatch, capsys
):
    run_id, results, looks = uuid4(), {}, []

    def in_order():
        looks.append(anyio.current_time())
        return [results[0]]

    async def is_looked_at_for_longer_than_a_silence_may_last():
        return looks and looks[-1] - looks[0] > 2 * api_timeout.ANSWER_TIMEOUT_SECONDS

    services = SimpleNamespace(runs={run_id: SimpleNamespace(in_order=in_order)})
    monkeypatch.setattr(api_timeout, "open_here", lambda: services)

    async def drive():
        async with api_timeout.unless_unheard(DeadApi(), run_id, RunControl()):
            # It has not ended: nobody gives it up.
            await until(is_looked_at_for_longer_than_a_silence_may_last)
            assert run_id not in api_timeout.given_up
            results[0] = "completed"
            await anyio.sleep_forever()

    with impatient(), anyio.fail_after(10), pytest.raises(ExecutionIOError, match="no answer"):
        await drive()
    assert "the Prefect API does not answer: waiting for it" in capsys.readouterr().err

    class Engine:
        async def stream(self, _, **options):
            raise ExecutionIOError("the API does not answer")
            yield

    with pytest.raises(ExceptionGroup) as refusal:
        await follow(Engine(), run_id, print, Interruption())
    assert "the run is over, but not recorded" in str(refusal.value.exceptions[0])


# Of a process of its own, as Prefect's log is the process's.
ITS_OWN_SERVICES = """
import logging
from cloudops_prefect.cli.connection import connect

connect()
logger = logging.getLogger("prefect._internal.concurrency")
logger.error("the whole of an event")
logger.critical("what nobody may miss")
"""


def test_prefects_own_services_are_quiet_too(monkeypatch):
    monkeypatch.delenv("PREFECT_LOGGING_LEVEL", raising=False)
    done = subprocess.run(
        [sys.executable, "-c", ITS_OWN_SERVICES],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
    )
    printed = done.stdout + done.stderr
    assert "what nobody may miss" in printed
    assert "the whole of an event" not in printed


def test_many_commands_that_did_not_run_for_one_reason_are_told_in_one_line(capsys):
    requests = [ExecutionRequest(command=ExecCommand(program="true")) for _ in range(10)]
    plan, why = ExecutionPlan(commands=requests), "not run: build failed"
    results = [ExecutionResult.not_run(request, uuid4(), why) for request in requests]
    result = PlanExecutionResult.of(plan, uuid4(), results, total_duration=timedelta())
    plan_summary(result, [f"command {index}" for index in range(10)])
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if why in line] == [f"10 commands: {why}"]
    # What did not run took no time.
    assert "command 3  cancelled" in printed
