import contextlib
import json
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pydantic
import pytest
from any_plans import plans, requests
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.durations import Duration
from cloudops_prefect.errors import (
    InvalidCommandError,
    InvalidPlanError,
    InvalidWorkingDirError,
    MissingFieldError,
    TimeoutTooLargeError,
    ValidationError,
)
from cloudops_prefect.models import (
    AwsCliCommand,
    CancelledEvent,
    Command,
    CompletedEvent,
    DependencyGraphStrategy,
    ExecCommand,
    ExecutionEvent,
    ExecutionMetadata,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionResult,
    ExecutionStats,
    ExecutionStatus,
    ExecutionStrategy,
    ExecutionSummary,
    FailedEvent,
    ParallelStrategy,
    PlanExecutionResult,
    ProgressEvent,
    ScriptCommand,
    SerialStrategy,
    ShellCommand,
    StartedEvent,
    StderrEvent,
    StdoutEvent,
)

ID = UUID("0190b1e0-0000-4000-8000-000000000001")
NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG = ExecutionConfig(default_timeout_ms=1_000, max_timeout_ms=5_000)

COMMAND = TypeAdapter(Command)
STRATEGY = TypeAdapter(ExecutionStrategy)
EVENT = TypeAdapter(ExecutionEvent)
DURATION = TypeAdapter(Duration)


def request(**fields):
    return ExecutionRequest(**{"command": ShellCommand(command="true"), **fields})


def result(status="completed", **fields):
    return ExecutionResult(**{"id": ID, "execution_id": ID, "status": status, **fields})


class TestCommands:
    @pytest.mark.parametrize(
        ("document", "command"),
        [
            (
                {"type": "script", "path": "a/b.sh"},
                ScriptCommand(path=Path("a/b.sh"), interpreter=None),
            ),
            (
                {"type": "script", "path": "b.x", "interpreter": "perl"},
                ScriptCommand(path=Path("b.x"), interpreter="perl"),
            ),
            ({"type": "exec", "program": "ls"}, ExecCommand(program="ls", args=[])),
            (
                {"type": "exec", "program": "ls", "args": ["-l", ""]},
                ExecCommand(program="ls", args=["-l", ""]),
            ),
            (
                {"type": "shell", "command": "a | b"},
                ShellCommand(command="a | b", shell="bash"),
            ),
            (
                {"type": "shell", "command": "a", "shell": "/bin/zsh"},
                ShellCommand(command="a", shell="/bin/zsh"),
            ),
            (
                {"type": "aws_cli", "service": "s3", "operation": "ls"},
                AwsCliCommand(service="s3", operation="ls", args=[], profile=None, region=None),
            ),
            (
                {
                    "type": "aws_cli",
                    "service": "ec2",
                    "operation": "describe-instances",
                    "args": ["--dry-run"],
                    "profile": "prod",
                    "region": "eu-central-1",
                },
                AwsCliCommand(
                    service="ec2",
                    operation="describe-instances",
                    args=["--dry-run"],
                    profile="prod",
                    region="eu-central-1",
                ),
            ),
        ],
    )
    def test_a_document_becomes_the_command_of_its_tag_and_back(self, document, command):
        assert COMMAND.validate_json(json.dumps(document)) == command
        written = json.loads(COMMAND.dump_json(command))
        assert document.items() <= written.items()
        assert COMMAND.validate_python(written) == command
        command.validate()

    @pytest.mark.parametrize(
        ("document", "kind"),
        [
            ({"type": "exec"}, "missing"),
            ({"type": "exec", "program": "ls", "argv": []}, "extra_forbidden"),
            ({"type": "exec", "program": "ls", "args": "-l"}, "list_type"),
            ({"type": "exec", "program": "ls", "args": [1]}, "string_type"),
            ({"type": "exec", "program": 5}, "string_type"),
            ({"type": "execute", "program": "ls"}, "union_tag_invalid"),
            ({"program": "ls"}, "union_tag_not_found"),
            ({"type": "shell", "command": None}, "string_type"),
            ({"type": "aws_cli", "service": "s3"}, "missing"),
        ],
    )
    def test_a_wrong_document_raises_pydantics_own_error(self, document, kind):
        with pytest.raises(pydantic.ValidationError) as refusal:
            COMMAND.validate_json(json.dumps(document))
        assert [error["type"] for error in refusal.value.errors()] == [kind]

    @pytest.mark.parametrize(
        ("command", "field"),
        [
            (ScriptCommand(path=""), "path"),
            (ExecCommand(program=""), "program"),
            (ExecCommand(program=" \t"), "program"),
            (ShellCommand(command=""), "command"),
            (ShellCommand(command="\n"), "command"),
            (AwsCliCommand(service="", operation="ls"), "service"),
            (AwsCliCommand(service="s3", operation=""), "operation"),
            (AwsCliCommand(service="s3", operation=" "), "operation"),
        ],
    )
    def test_an_empty_required_field_is_missing(self, command, field):
        with pytest.raises(MissingFieldError) as refusal:
            command.validate()
        assert str(refusal.value) == f"Missing required field: {field}"
        assert refusal.value.field == field

    @pytest.mark.parametrize(
        ("command", "says"),
        [
            (ScriptCommand(path="a\0b"), "path contains a NUL byte"),
            (ScriptCommand(path="a", interpreter="p\0"), "interpreter contains a NUL byte"),
            (ScriptCommand(path="a", interpreter=""), "interpreter is empty"),
            (ScriptCommand(path="a", interpreter="-x"), "interpreter can't be an option: `-x`"),
            (ExecCommand(program="l\0s"), "program contains a NUL byte"),
            (ExecCommand(program="ls", args=["a", "\0"]), r"args\[1\] contains a NUL byte"),
            (ShellCommand(command="a\0"), "command contains a NUL byte"),
            (ShellCommand(command="a", shell=""), "shell must be one name"),
            (ShellCommand(command="a", shell="-c"), "shell must be one name"),
            (ShellCommand(command="a", shell="bash -x"), "shell must be one name"),
            (ShellCommand(command="a", shell="bash\n"), "shell must be one name"),
            (ShellCommand(command="a", shell="\0bash"), "shell contains a NUL byte"),
            (ShellCommand(command="a", shell="python3"), "`python3` is not a shell"),
            (ShellCommand(command="a", shell="/usr/bin/"), "`/usr/bin/` is not a shell"),
            (AwsCliCommand(service="--debug", operation="ls"), "service can't be an option"),
            (AwsCliCommand(service="s3", operation="-h"), "operation can't be an option: `-h`"),
            (AwsCliCommand(service="s3 ls", operation="x"), "service must be one word"),
            (AwsCliCommand(service="s3", operation="l\0s"), "operation contains a NUL byte"),
            (AwsCliCommand(service="s3", operation="ls", args=["\0"]), r"args\[0\] contains"),
            (AwsCliCommand(service="s3", operation="ls", profile=""), "profile is empty"),
            (AwsCliCommand(service="s3", operation="ls", region="\0"), "region contains a NUL"),
            (AwsCliCommand(service="s3", operation="ls", region="--x"), "region can't be"),
        ],
    )
    def test_what_cant_be_a_command_is_refused(self, command, says):
        with pytest.raises(InvalidCommandError, match=f"^Invalid command format: {says}"):
            command.validate()

    @pytest.mark.parametrize(
        "shell",
        ["sh", "bash", "zsh", "fish", "dash", "ksh93", "bash-5.2", "/opt/bin/bash", "nu", "pwsh"],
    )
    def test_a_shell_is_told_by_its_name(self, shell):
        ShellCommand(command="true", shell=shell).validate()

    def test_all_errors_of_a_shape_can_be_listed(self):
        command = AwsCliCommand(service="-x", operation="", args=["\0"], profile="")
        assert [error.field for error in command.shape_errors()] == [
            "service",
            "operation",
            "args[0]",
            "profile",
        ]

    def test_the_path_is_accepted_as_text_or_path(self):
        assert ScriptCommand(path="x/y.sh") == ScriptCommand(path=Path("x/y.sh"))


class TestRequests:
    def test_the_defaults_are_the_contracts(self):
        first, second = request(), request()
        assert first.id != second.id
        assert first.id.version == 4
        assert first.model_dump(exclude={"id", "command"}) == {
            "name": None,
            "env": {},
            "env_from": [],
            "working_dir": None,
            "timeout_ms": None,
            "keep_background": False,
            "output_log_path": None,
            "metadata": {"source": None, "conversation_id": None, "tags": {}},
        }

    def test_a_whole_document_survives_json(self):
        document = {
            "id": str(ID),
            "name": "list",
            "command": {"type": "exec", "program": "ls", "args": ["-l"]},
            "env": {"A": "1"},
            "env_from": ["command-environment/deploy"],
            "working_dir": "/tmp",
            "timeout_ms": 500,
            "keep_background": True,
            "output_log_path": "out.log",
            "metadata": {"source": "ci", "conversation_id": "7", "tags": {"team": "ops"}},
        }
        read = ExecutionRequest.model_validate_json(json.dumps(document))
        assert json.loads(read.model_dump_json()) == document
        assert (read.id, read.working_dir) == (ID, Path("/tmp"))

    @pytest.mark.parametrize(
        "fields",
        [
            {"env": {"A": 1}},
            {"env": ["A"]},
            {"timeout_ms": "500"},
            {"timeout_ms": 1.5},
            {"timeout_ms": True},
            {"keep_background": "yes"},
            {"working_dir": ""},
            {"output_log_path": ""},
            {"metadata": {"tags": {"a": 1}}},
            {"metadata": {"tag": {}}},
            {"id": "nope"},
            {"timeout": 5},
            {"command": "make test"},
        ],
    )
    def test_wrong_types_and_unknown_fields_raise_pydantics_own_error(self, fields):
        with pytest.raises(pydantic.ValidationError):
            request(**fields)

    @pytest.mark.parametrize(("timeout_ms", "effective"), [(None, 1_000), (1, 1), (5_000, 5_000)])
    def test_the_timeout_is_its_own_or_the_default(self, timeout_ms, effective):
        checked = request(timeout_ms=timeout_ms)
        checked.validate(CONFIG)
        assert checked.effective_timeout_ms(CONFIG) == effective

    def test_a_timeout_above_the_maximum_is_refused(self):
        with pytest.raises(TimeoutTooLargeError) as refusal:
            request(timeout_ms=5_001).validate(CONFIG)
        assert str(refusal.value) == "Timeout exceeds maximum allowed: 5001ms > 5000ms"

    def test_without_a_configuration_all_is_checked_but_the_longest_timeout(self):
        request(timeout_ms=10**9).validate()
        with pytest.raises(ValidationError, match="timeout_ms must be above 0"):
            request(timeout_ms=0).validate()

    @pytest.mark.parametrize("timeout_ms", [0, -1])
    def test_a_timeout_of_no_time_is_refused(self, timeout_ms):
        with pytest.raises(ValidationError) as refusal:
            request(timeout_ms=timeout_ms).validate(CONFIG)
        assert str(refusal.value) == (
            f"Validation error: timeout_ms must be above 0, not {timeout_ms}"
        )

    @pytest.mark.parametrize(
        ("fields", "error", "says"),
        [
            ({"env": {"": "x"}}, InvalidCommandError, "without a name"),
            ({"env": {"A=B": "x"}}, InvalidCommandError, "`A=B` contains `=`"),
            ({"env": {"A\0": "x"}}, InvalidCommandError, "NUL byte"),
            ({"env": {"A": "x\0"}}, InvalidCommandError, r"env\[A\] contains a NUL byte"),
            ({"name": "a\0"}, InvalidCommandError, "name contains a NUL byte"),
            ({"working_dir": "a\0"}, InvalidWorkingDirError, "NUL byte"),
            ({"output_log_path": "a\0"}, InvalidCommandError, "output_log_path contains a NUL"),
            ({"working_dir": "~"}, InvalidWorkingDirError, "can't begin with `~`"),
            ({"working_dir": "~/a"}, InvalidWorkingDirError, "write the whole path"),
            ({"output_log_path": "~/log"}, InvalidCommandError, "output_log_path can't begin"),
            ({"command": ScriptCommand(path="~/a.sh")}, InvalidCommandError, "path can't begin"),
            ({"command": ExecCommand(program="~/a")}, InvalidCommandError, "program can't begin"),
            ({"env_from": ["deploy"]}, ValidationError, r"env_from\[0\] must name a block"),
            ({"env_from": ["a/b", "/b"]}, ValidationError, r"env_from\[1\] must name a block"),
            ({"env_from": ["a/b/c"]}, ValidationError, "must name a block"),
            ({"command": ExecCommand(program="")}, MissingFieldError, "field: program$"),
        ],
    )
    def test_the_shape_of_everything_is_checked(self, fields, error, says):
        with pytest.raises(error, match=says):
            request(**fields).validate(CONFIG)

    def test_a_tilde_elsewhere_is_part_of_a_name(self):
        request(
            command=ExecCommand(program="~tool", args=["~/x"]), working_dir=Path("a~/~")
        ).validate(CONFIG)

    def test_nothing_is_looked_up_in_the_file_system(self):
        request(
            command=ScriptCommand(path="/nonexistent/x.sh"),
            working_dir=Path("/nonexistent"),
            output_log_path=Path("/nonexistent/log"),
        ).validate(CONFIG)

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"name": "Build it"}, "Build it"),
            ({"name": " two\nlines "}, "two lines"),
            ({"name": ""}, "true"),
            ({"command": ScriptCommand(path="/a/deploy.sh")}, "deploy.sh"),
            ({"command": ScriptCommand(path="/a/b.sh", args=["-n", "x y"])}, "b.sh -n 'x y'"),
            ({"command": ExecCommand(program="python3", args=["-m", "x y"])}, "python3 -m 'x y'"),
            ({"command": ExecCommand(program="echo", args=["a\nb"])}, "echo 'a b'"),
            ({"command": ShellCommand(command="\n  set -e\nmake\n")}, "set -e"),
            (
                {"command": AwsCliCommand(service="s3", operation="ls", args=["s3://b"])},
                "aws s3 ls s3://b",
            ),
            ({"command": ShellCommand(command="x" * 81)}, "x" * 79 + "…"),
            ({"name": "y" * 80}, "y" * 80),
            ({"name": "\x1b[31mred"}, "\ufffd[31mred"),
        ],
    )
    def test_the_display_name_is_one_short_line(self, fields, name):
        assert request(**fields).display_name == name


class TestStrategiesAndPlans:
    @pytest.mark.parametrize(
        ("document", "strategy"),
        [
            ({"type": "serial"}, SerialStrategy(stop_on_error=True)),
            ({"type": "serial", "stop_on_error": False}, SerialStrategy(stop_on_error=False)),
            ({"type": "parallel"}, ParallelStrategy(max_concurrency=None)),
            ({"type": "parallel", "max_concurrency": 3}, ParallelStrategy(max_concurrency=3)),
            (
                {"type": "dependency_graph", "dependencies": {"1": [0], "2": [0, 1]}},
                DependencyGraphStrategy(dependencies={1: [0], 2: [0, 1]}),
            ),
        ],
    )
    def test_a_document_becomes_the_strategy_of_its_tag_and_back(self, document, strategy):
        assert STRATEGY.validate_json(json.dumps(document)) == strategy
        assert document.items() <= json.loads(STRATEGY.dump_json(strategy)).items()

    @pytest.mark.parametrize(
        "document",
        [
            {"type": "serial", "stop_on_error": "yes"},
            {"type": "parallel", "max_concurrency": "3"},
            {"type": "dependency_graph", "dependencies": {"a": []}},
            {"type": "dependency_graph", "dependencies": {"0": [True]}},
            {"type": "dependency_graph", "dependencies": {"0": 1}},
            {"type": "graph"},
            {"stop_on_error": True},
        ],
    )
    def test_a_wrong_strategy_raises_pydantics_own_error(self, document):
        with pytest.raises(pydantic.ValidationError):
            STRATEGY.validate_json(json.dumps(document))

    def test_a_plan_has_defaults(self):
        plan = ExecutionPlan(commands=[request()])
        assert plan.strategy == SerialStrategy()
        assert (plan.description, plan.env_from) == ("", [])
        assert plan.metadata == ExecutionMetadata()
        assert plan.id.version == 4

    def test_keys_of_dependencies_are_texts_in_json_and_numbers_in_python(self):
        plan = ExecutionPlan(
            commands=[request(), request()],
            strategy=DependencyGraphStrategy(dependencies={1: [0]}),
        )
        document = json.loads(plan.model_dump_json())
        assert document["strategy"]["dependencies"] == {"1": [0]}
        assert ExecutionPlan.model_validate(document) == plan

    def test_a_commands_error_names_its_index_and_name(self):
        bad = [
            (request(name="b", timeout_ms=9_000), TimeoutTooLargeError, "9000ms > 5000ms"),
            (request(name="b", env={"": ""}), InvalidCommandError, "env has a variable"),
            (request(name="b", command=ExecCommand(program="")), MissingFieldError, "program"),
        ]
        for command, error, says in bad:
            with pytest.raises(error, match=rf"{says}.* \(commands\[1\], b\)$"):
                ExecutionPlan(commands=[request(), command]).validate(CONFIG)

    def test_the_graph_is_checked_too(self):
        with pytest.raises(InvalidPlanError):
            ExecutionPlan(commands=[]).validate(CONFIG)
        with pytest.raises(InvalidPlanError):
            ExecutionPlan(
                commands=[request()], strategy=DependencyGraphStrategy(dependencies={0: [0]})
            ).validate(CONFIG)

    def test_the_plans_own_blocks_are_checked(self):
        with pytest.raises(ValidationError, match="env_from"):
            ExecutionPlan(commands=[request()], env_from=["x"]).validate(CONFIG)

    def test_without_a_configuration_all_is_checked_but_the_longest_timeouts(self):
        ExecutionPlan(commands=[request(timeout_ms=10**9)]).validate()
        with pytest.raises(InvalidPlanError, match="at least one command"):
            ExecutionPlan(commands=[]).validate()

    def test_a_good_plan_passes(self):
        ExecutionPlan(commands=[request()], env_from=["aws-credentials/prod"]).validate(CONFIG)


class TestDurations:
    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("PT2.5S", 2.5),
            ("PT1H30M", 5_400),
            ("P1DT1S", 86_401),
            ({"secs": 2, "nanos": 500_000_000}, 2.5),
            ({"secs": 2, "nanos": 0}, 2),
            ({"secs": 2}, 2),
            ("2s 500ms", 2.5),
            ("2s500ms", 2.5),
            ("500ms", 0.5),
            ("250us", 0.00025),
            ("250µs", 0.00025),
            ("3000ns", 0.000003),
            ("1d 2h 3m 4s", 93_784),
            ("5min", 300),
            ("5 mins", 300),
            ("2 hours 1 minute", 7_260),
            ("1.5h", 5_400),
            ("30 seconds", 30),
            (2, 2),
            (2.5, 2.5),
            ("2.5", 2.5),
            ("0", 0),
            ("-PT2.5S", -2.5),
            ({"secs": -3, "nanos": 500_000_000}, -2.5),
            ("-2s 500ms", -2.5),
            (-2.5, -2.5),
            ("-2.5", -2.5),
        ],
    )
    def test_every_spelling_is_read(self, written, seconds):
        assert DURATION.validate_python(written) == timedelta(seconds=seconds)
        assert DURATION.validate_json(json.dumps(written)) == timedelta(seconds=seconds)

    @pytest.mark.parametrize(
        "written",
        [
            "",
            "soon",
            "5 parsecs",
            "5s x",
            "2s -500ms",
            "--2s",
            "1h,",
            True,
            None,
            [],
            {},
            {"secs": "2"},
            {"secs": 1.5},
            {"seconds": 2},
            {"secs": 1, "nanos": 0, "x": 1},
            {"secs": 10**18},
            "999999999999d",
            "9" * 400,
            float("inf"),
            float("nan"),
        ],
    )
    def test_anything_else_is_refused(self, written):
        with pytest.raises(pydantic.ValidationError):
            DURATION.validate_python(written)

    def test_iso_8601_is_written(self):
        assert DURATION.dump_json(timedelta(seconds=2, milliseconds=500)) == b'"PT2.5S"'
        assert json.loads(result(duration="90s").model_dump_json())["duration"] == "PT1M30S"

    @given(st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)))
    def test_a_duration_survives_json(self, duration):
        assert DURATION.validate_json(DURATION.dump_json(duration)) == duration

    @given(st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)))
    def test_seconds_and_nanoseconds_say_the_same(self, duration):
        seconds = duration // timedelta(seconds=1)
        parts = {"secs": seconds, "nanos": duration.microseconds * 1_000}
        assert DURATION.validate_python(parts) == duration


class TestResults:
    def test_statuses_are_the_contracts(self):
        assert [str(status) for status in ExecutionStatus] == [
            "pending",
            "running",
            "completed",
            "failed",
            "cancelled",
            "timeout",
        ]
        final = {status for status in ExecutionStatus if status.is_final}
        assert final == set(ExecutionStatus) - {"pending", "running"}

    def test_a_result_survives_json(self):
        document = {
            "id": str(ID),
            "execution_id": str(ID),
            "name": "build",
            "status": "timeout",
            "exit_code": -15,
            "stdout": "a\n",
            "stderr": "",
            "duration": "PT0.25S",
            "started_at": "2025-01-02T03:04:05Z",
            "completed_at": None,
            "log_path": "/tmp/x.log",
            "error": "Execution timeout after 250ms",
            "stdout_truncated": True,
            "stderr_truncated": False,
            "leftovers": ["sleep 60 (pid 7)"],
        }
        read = ExecutionResult.model_validate_json(json.dumps(document))
        assert json.loads(read.model_dump_json()) == document
        assert (read.started_at, read.log_path) == (NOW, Path("/tmp/x.log"))

    def test_a_command_that_never_ran_is_cancelled_and_says_why(self):
        wanted = request(id=ID)
        execution_id = uuid4()
        never = ExecutionResult.not_run(wanted, execution_id, "commands[0] failed")
        assert (never.id, never.execution_id) == (ID, execution_id)
        assert (never.status, never.error) == ("cancelled", "commands[0] failed")
        assert (never.exit_code, never.started_at, never.duration) == (None, None, timedelta())

    @given(st.lists(st.sampled_from(list(ExecutionStatus))))
    def test_stats_add_up(self, statuses):
        stats = ExecutionStats.of([result(status) for status in statuses])
        assert stats.total == len(statuses)
        assert stats.completed + stats.failed + stats.cancelled + stats.timeout == stats.total
        assert stats.timeout == statuses.count(ExecutionStatus.TIMEOUT)

    def test_stats_that_dont_add_up_are_refused(self):
        with pytest.raises(pydantic.ValidationError, match="add up to 2, total is 3"):
            ExecutionStats(total=3, completed=1, failed=1, cancelled=0, timeout=0)
        with pytest.raises(pydantic.ValidationError):
            ExecutionStats(total=0, completed=1, failed=-1)

    @pytest.mark.parametrize(
        ("statuses", "cancelled", "status"),
        [
            (["completed", "completed"], False, "completed"),
            (["completed", "failed"], False, "failed"),
            (["timeout", "completed"], False, "failed"),
            (["failed", "cancelled"], False, "failed"),
            (["completed", "cancelled"], True, "cancelled"),
            (["failed", "cancelled"], True, "cancelled"),
        ],
    )
    def test_a_plans_status_follows_from_its_commands(self, statuses, cancelled, status):
        plan = ExecutionPlan(commands=[request(), request()])
        outcome = PlanExecutionResult.of(
            plan,
            ID,
            [result(status) for status in statuses],
            total_duration=timedelta(seconds=1),
            cancelled=cancelled,
        )
        assert (outcome.plan_id, outcome.execution_id, outcome.status) == (plan.id, ID, status)
        assert outcome.stats.total == 2
        assert PlanExecutionResult.model_validate_json(outcome.model_dump_json()) == outcome

    def test_a_plan_can_be_one_result(self):
        later = datetime(2025, 1, 2, 4, tzinfo=UTC)
        plan = ExecutionPlan(commands=[request()] * 4)
        outcome = PlanExecutionResult.of(
            plan,
            ID,
            [
                result(stdout="a\n", stderr="x", exit_code=0, started_at=NOW, completed_at=NOW),
                result("cancelled", error="not run"),
                result(
                    "failed",
                    stdout="b\n",
                    exit_code=3,
                    error="three",
                    stderr_truncated=True,
                    leftovers=["a"],
                ),
                result("failed", exit_code=4, error="four", started_at=NOW, completed_at=later),
            ],
            total_duration=timedelta(seconds=9),
        ).as_result()
        assert (outcome.id, outcome.execution_id) == (plan.id, ID)
        assert (outcome.status, outcome.exit_code, outcome.error) == ("failed", 3, "three")
        assert (outcome.stdout, outcome.stderr) == ("a\nb\n", "x")
        assert (outcome.stdout_truncated, outcome.stderr_truncated) == (False, True)
        assert outcome.leftovers == ["a"]
        assert (outcome.started_at, outcome.completed_at) == (NOW, later)
        assert outcome.duration == timedelta(seconds=9)

    def test_a_completed_plan_has_exit_code_0_and_no_error(self):
        plan = ExecutionPlan(commands=[request()])
        done = PlanExecutionResult.of(plan, ID, [result()], total_duration=timedelta())
        assert (done.as_result().exit_code, done.as_result().error) == (0, None)

    def test_a_summary_survives_json(self):
        summary = ExecutionSummary(id=ID, status="running", started_at=NOW, kind="plan", name="x")
        assert ExecutionSummary.model_validate_json(summary.model_dump_json()) == summary


EVENTS = [
    StartedEvent(execution_id=ID, request_id=ID, command="make", timestamp=NOW),
    StdoutEvent(execution_id=ID, request_id=ID, line="out", timestamp=NOW),
    StderrEvent(execution_id=ID, request_id=ID, line="err", timestamp=NOW),
    CompletedEvent(execution_id=ID, request_id=ID, result=result(), timestamp=NOW),
    FailedEvent(execution_id=ID, request_id=ID, error="why", timestamp=NOW),
    CancelledEvent(execution_id=ID, request_id=ID, timestamp=NOW),
    ProgressEvent(
        plan_id=ID, execution_id=ID, completed=1, total=2, current_command="make", timestamp=NOW
    ),
]


class TestEvents:
    @pytest.mark.parametrize("event", EVENTS)
    def test_an_event_survives_json_by_its_tag(self, event):
        document = json.loads(event.model_dump_json())
        tag = type(event).__name__.removesuffix("Event").lower()
        assert document["event_type"] == tag
        assert EVENT.validate_python(document) == event
        assert pickle.loads(pickle.dumps(event)) == event

    def test_an_event_happens_now_unless_told(self):
        before = datetime.now(UTC)
        event = CancelledEvent(execution_id=ID, request_id=ID)
        assert before <= event.timestamp <= datetime.now(UTC)

    def test_a_line_event_can_be_made_without_validation(self):
        event = StdoutEvent.model_construct(
            execution_id=ID, request_id=ID, line="out", timestamp=NOW
        )
        assert event == EVENTS[1]
        assert EVENT.validate_json(event.model_dump_json()) == event


MODELS = [
    ExecCommand(program="ls"),
    request(),
    ExecutionMetadata(),
    ExecutionPlan(commands=[request()]),
    SerialStrategy(),
    result(),
    ExecutionStats(),
    *EVENTS,
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_every_model_is_frozen_and_refuses_unknown_fields(model):
    field = next(iter(type(model).model_fields))
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        setattr(model, field, None)
    with pytest.raises(pydantic.ValidationError, match="extra_forbidden"):
        type(model).model_validate({**model.model_dump(), "surplus": 1})


@given(plans)
def test_any_plan_survives_json_and_pickling(plan):
    assert ExecutionPlan.model_validate_json(plan.model_dump_json()) == plan
    assert ExecutionPlan.model_validate(plan.model_dump()) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan


@given(plans)
def test_validation_ends_with_one_of_our_errors_or_passes(plan):
    with contextlib.suppress(ValidationError):
        plan.validate(CONFIG)


@given(requests)
def test_a_display_name_is_always_one_line_of_at_most_80_characters(any_request):
    name = any_request.display_name
    assert len(name) <= 80
    assert name.isprintable()
