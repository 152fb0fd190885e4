import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from uuid import UUID

import jsonschema
import pytest
import yaml
from any_plans import plans, requests
from hypothesis import example, given
from hypothesis import strategies as st
from scaling import LINEAR, cpu_seconds

from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import (
    InvalidCommandError,
    InvalidPlanError,
    MissingFieldError,
    ValidationError,
)
from cloudops_prefect.models import (
    AwsCliCommand,
    DependencyGraphStrategy,
    ExecCommand,
    ExecutionPlan,
    ExecutionRequest,
    ParallelStrategy,
    ScriptCommand,
    SerialStrategy,
    ShellCommand,
)
from cloudops_prefect.nodes import line_and_column
from cloudops_prefect.planfile import (
    check_plan,
    check_request,
    json_schema,
    load_plan,
    load_request,
    parse_plan,
    parse_request,
)

WHOLE = """\
# yaml-language-server: $schema=plan.schema.json
description: Release
metadata: {source: ci, tags: {build: 17}}
env_from: [command-environment/deploy]
commands:
  - name: build
    run: make build
    shell: zsh
    env: {JOBS: 4, DEBUG: yes, VERSION: 1.10, MODE: 0755, EMPTY: ""}
    working_dir: src
    timeout: 1m 30s
  - name: test
    exec: [python3, -m, pytest, -n, 4]
    needs: [build]
    timeout_ms: 5000
  - name: docs
    script: ./docs.sh
    interpreter: dash
    needs: build
    output_log_path: docs.log
  - id: 0190b1e0-0000-4000-8000-000000000001
    aws: s3 cp dist "s3://my bucket/" --recursive
    profile: prod
    region: eu-central-1
    needs: [test, 2]
    env_from: [aws-credentials/prod]
    metadata: {tags: {team: ops}}
"""


def commands_of(text):
    return [request.command for request in parse_plan(textwrap.dedent(text)).commands]


def mistakes_of(text):
    return [str(mistake) for mistake in check_plan(textwrap.dedent(text), "p.yaml")]


class TestShortForms:
    def test_a_whole_plan_is_read(self):
        plan = parse_plan(WHOLE)
        build, test, docs, upload = plan.commands
        assert plan.description == "Release"
        assert plan.metadata.model_dump() == {
            "source": "ci",
            "conversation_id": None,
            "tags": {"build": "17"},
        }
        assert plan.env_from == ["command-environment/deploy"]
        assert plan.strategy == DependencyGraphStrategy(dependencies={1: [0], 2: [0], 3: [1, 2]})
        assert build.command == ShellCommand(command="make build", shell="zsh")
        assert (build.name, build.working_dir, build.timeout_ms) == ("build", Path("src"), 90_000)
        assert test.command == ExecCommand(program="python3", args=["-m", "pytest", "-n", "4"])
        assert test.timeout_ms == 5_000
        assert docs.command == ScriptCommand(path="docs.sh", interpreter="dash")
        assert docs.output_log_path == Path("docs.log")
        assert upload.command == AwsCliCommand(
            service="s3",
            operation="cp",
            args=["dist", "s3://my bucket/", "--recursive"],
            profile="prod",
            region="eu-central-1",
        )
        assert upload.id == UUID("0190b1e0-0000-4000-8000-000000000001")
        assert (upload.env_from, upload.metadata.tags) == (
            ["aws-credentials/prod"],
            {"team": "ops"},
        )

    def test_values_of_variables_stay_as_they_are_written(self):
        assert parse_plan(WHOLE).commands[0].env == {
            "JOBS": "4",
            "DEBUG": "yes",
            "VERSION": "1.10",
            "MODE": "0755",
            "EMPTY": "",
        }

    @pytest.mark.parametrize(
        ("entry", "command"),
        [
            ("run: true", ShellCommand(command="true")),
            ("run: |\n  set -e\n  make\n", ShellCommand(command="set -e\nmake\n")),
            ("script: 2024-01-01", ScriptCommand(path="2024-01-01")),
            ("script: ./x.py --flag", ScriptCommand(path="x.py", args=["--flag"])),
            ("script: \"'my x.py' 'a b'\"", ScriptCommand(path="my x.py", args=["a b"])),
            ("script: my\\ x.py", ScriptCommand(path="my x.py")),
            ("script: [my x.py, -n, 010]", ScriptCommand(path="my x.py", args=["-n", "010"])),
            (
                "script: x.py -v\nargs: -n 'a b'",
                ScriptCommand(path="x.py", args=["-v", "-n", "a b"]),
            ),
            ("script: x.py\nargs: [-n, 1.50]", ScriptCommand(path="x.py", args=["-n", "1.50"])),
            ("script: x.py\nargs: 5", ScriptCommand(path="x.py", args=["5"])),
            ("script: x.py\nargs: ''", ScriptCommand(path="x.py")),
            ("script: x.py\nargs: []", ScriptCommand(path="x.py")),
            ("script: >\n  x.py\n  --flag\n", ScriptCommand(path="x.py", args=["--flag"])),
            (
                "command: {type: script, path: my x.py, args: [-n, 1], interpreter: python3}",
                ScriptCommand(path="my x.py", args=["-n", "1"], interpreter="python3"),
            ),
            ("exec: ls -l 'a b'", ExecCommand(program="ls", args=["-l", "a b"])),
            ("exec: [sleep, 1.50, no]", ExecCommand(program="sleep", args=["1.50", "no"])),
            ("exec: [echo, '']", ExecCommand(program="echo", args=[""])),
            (
                "aws: ec2 describe-instances",
                AwsCliCommand(service="ec2", operation="describe-instances"),
            ),
            (
                "aws: [s3, ls, --page-size, 5]",
                AwsCliCommand(service="s3", operation="ls", args=["--page-size", "5"]),
            ),
            ("command: {type: exec, program: ls}", ExecCommand(program="ls")),
        ],
    )
    def test_every_form_of_a_command_is_read(self, entry, command):
        assert parse_request(entry).command == command
        assert commands_of("commands:\n- " + entry.replace("\n", "\n  ")) == [command]

    @pytest.mark.parametrize(
        ("timeout", "timeout_ms"),
        [
            ("30s", 30_000),
            ("90", 90_000),
            ("0.5", 500),
            ("PT2M", 120_000),
            ("{secs: 2, nanos: 1}", 2_000),
            ("1us", 1),
        ],
    )
    def test_a_timeout_is_a_duration(self, timeout, timeout_ms):
        assert parse_request(f"run: x\ntimeout: {timeout}").timeout_ms == timeout_ms

    @pytest.mark.parametrize(
        ("strategy", "expected"),
        [
            ("serial", SerialStrategy()),
            ("parallel", ParallelStrategy()),
            ("dependency_graph", DependencyGraphStrategy()),
            ("{type: serial, stop_on_error: false}", SerialStrategy(stop_on_error=False)),
            ("{type: parallel, max_concurrency: 2}", ParallelStrategy(max_concurrency=2)),
            (
                "{type: dependency_graph, dependencies: {1: [0]}}",
                DependencyGraphStrategy(dependencies={1: [0]}),
            ),
            (
                '{"type": "dependency_graph", "dependencies": {"1": [0]}}',
                DependencyGraphStrategy(dependencies={1: [0]}),
            ),
        ],
    )
    def test_a_strategy_is_a_word_or_an_object(self, strategy, expected):
        plan = parse_plan(f"strategy: {strategy}\ncommands: [{{run: a}}, {{run: b}}]")
        assert plan.strategy == expected

    def test_without_a_strategy_a_plan_is_serial_or_what_its_needs_say(self):
        assert parse_plan("commands: [{run: a}]").strategy == SerialStrategy()
        assert parse_plan(
            "commands: [{run: a}, {run: b, needs: 0}]"
        ).strategy == DependencyGraphStrategy(dependencies={1: [0]})

    def test_needs_are_added_to_what_dependencies_say(self):
        plan = parse_plan(
            "strategy: {type: dependency_graph, dependencies: {2: [0]}}\n"
            "commands: [{run: a}, {run: b, name: b}, {run: c, needs: [b]}]"
        )
        assert plan.strategy == DependencyGraphStrategy(dependencies={2: [0, 1]})

    def test_equal_names_are_fine_where_nothing_needs_them(self):
        plan = parse_plan("commands: [{run: a, name: x}, {run: b, name: x}]")
        assert [request.name for request in plan.commands] == ["x", "x"]

    def test_anchors_and_merge_keys_work(self):
        first, second, third = parse_plan(
            textwrap.dedent("""\
                x-defaults: &defaults {timeout: 10s, env: &env {A: 1}}
                x-more: &more {<<: *defaults, working_dir: /tmp}
                commands:
                  - {<<: *defaults, run: a}
                  - <<: [*more, {timeout: 9s}]
                    run: b
                    env: {<<: *env, B: 2}
                  - &same {run: c, timeout: 5s}
            """)
        ).commands
        assert (first.timeout_ms, first.env) == (10_000, {"A": "1"})
        assert (second.timeout_ms, second.working_dir) == (10_000, Path("/tmp"))
        assert second.env == {"A": "1", "B": "2"}
        assert third.timeout_ms == 5_000

    def test_an_editors_schema_line_is_no_field(self):
        assert parse_plan('{"$schema": "x.json", "commands": [{"run": "a"}]}').commands
        assert parse_request('{"$schema": "x.json", "run": "a"}').command

    def test_paths_stay_as_they_are_written(self, tmp_path):
        file = tmp_path / "plan.yaml"
        file.write_text("commands: [{script: run/me.sh, working_dir: ../there}]")
        [request] = load_plan(file).commands
        assert request.command == ScriptCommand(path="run/me.sh")
        assert request.working_dir == Path("../there")


def _as_yaml(document: str) -> str:
    # PyYAML's dumper in Python writes a NEL (U+0085) as it is, which reads as a space.
    return yaml.dump(json.loads(document), Dumper=yaml.CSafeDumper, allow_unicode=True)


class TestContractForm:
    @example(
        ExecutionPlan(
            strategy=SerialStrategy(),
            commands=[ExecutionRequest(command=ScriptCommand(path="\x85"))],
        )
    )
    @given(plans)
    def test_a_plan_written_as_json_or_yaml_is_read_back(self, plan):
        document = plan.model_dump_json()
        for text, source in [
            (document, "p.json"),
            (document, "p.yaml"),
            (json.dumps(json.loads(document), indent="\t"), "p"),
            (_as_yaml(document), "p.yaml"),
        ]:
            if check_plan(text, source):
                with pytest.raises(ValidationError):
                    parse_plan(text, source)
            else:
                assert parse_plan(text, source) == plan

    @given(requests)
    def test_mistakes_are_found_exactly_where_validation_finds_them(self, request_):
        config = ExecutionConfig(max_timeout_ms=2**60)
        try:
            request_.validate(config)
        except ValidationError as error:
            expected = type(error)
        else:
            expected = None
        mistakes = check_request(request_.model_dump_json(), "r.json", config)
        assert bool(mistakes) == bool(expected)
        if expected in {MissingFieldError, InvalidCommandError} and len(mistakes) == 1:
            with pytest.raises(expected):
                parse_request(request_.model_dump_json(), "r.json")

    def test_a_plan_dumped_from_python_is_valid_as_it_is(self):
        plan = parse_plan(WHOLE)
        assert parse_plan(plan.model_dump_json(), "plan.json") == plan
        assert parse_plan(plan.model_dump_json(indent=2), "plan.yaml") == plan

    def test_json_with_surrogate_pairs_tabs_and_a_byte_order_mark_is_read(self):
        text = '\ufeff{\n\t"commands": [{"run": "echo \\ud83d\\ude00 \\/ \\u00e9"}]\n}'
        assert commands_of(text) == [ShellCommand(command="echo 😀 / é")]

    def test_yaml_with_braces_is_read(self):
        assert commands_of("{commands: [{run: a}]}") == [ShellCommand(command="a")]


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "mistake"),
        [
            (
                "commands: [{name: a, run: a}]\nneeds: [a]",
                (
                    "p.yaml:2:1: needs: unknown field `needs`; indent it under its command; "
                    "known here: id, description, strategy, commands, env_from, metadata"
                ),
            ),
            (
                "comands: []",
                "p.yaml:1:1: comands: unknown field `comands`; did you mean `commands`?",
            ),
            (
                "commands:\n  - run: a\n    wroking_dir: x\n",
                (
                    "p.yaml:3:5: commands[0].wroking_dir: unknown field `wroking_dir`; "
                    "did you mean `working_dir`?"
                ),
            ),
            (
                "commands: [{run: a, Working-Dir: x}]",
                (
                    "p.yaml:1:21: commands[0].Working-Dir: unknown field `Working-Dir`; "
                    "did you mean `working_dir`?"
                ),
            ),
            (
                "commands:\n- run: a\n  cwd: x\n",
                "p.yaml:3:3: commands[0].cwd: unknown field `cwd`; did you mean `working_dir`?",
            ),
            (
                "commands: [{rum: a}]",
                "p.yaml:1:13: commands[0].rum: unknown field `rum`; did you mean `run`?",
            ),
            (
                "commands: [{shel: a}]",
                "p.yaml:1:13: commands[0].shel: unknown field `shel`; did you mean `run`?",
            ),
            (
                "commands: [{run: a, shel: sh}]",
                "p.yaml:1:21: commands[0].shel: unknown field `shel`; did you mean `shell`?",
            ),
            (
                "commands: [{shell: make test}]",
                (
                    "p.yaml:1:13: commands[0].shell: says nothing of what to run; "
                    "write `run: …`; `shell` only tells which shell runs it"
                ),
            ),
            (
                "commands: [{bash: a}]",
                "p.yaml:1:13: commands[0].bash: unknown field `bash`; did you mean `run`?",
            ),
            (
                "commands: [{program: ls}]",
                "p.yaml:1:13: commands[0].program: unknown field `program`; did you mean `exec`?",
            ),
            (
                "commands: [{run: a, enviroment: {}}]",
                (
                    "p.yaml:1:21: commands[0].enviroment: unknown field `enviroment`; "
                    "did you mean `env`?"
                ),
            ),
            (
                "commands:\n  - run: a\n    timeout_ms: soon\n",
                (
                    "p.yaml:3:17: commands[0].timeout_ms: must be a whole number, not `soon`; "
                    "write `timeout: 30s` for a time with a unit"
                ),
            ),
            (
                "commands: [{command: {type: shel, command: a}}]",
                "p.yaml:1:29: commands[0].command.type: unknown kind `shel`; did you mean `shell`?",
            ),
            (
                "commands: [{command: {type: exec, program: ls, arg: []}}]",
                "p.yaml:1:48: commands[0].command.arg: unknown field `arg`; did you mean `args`?",
            ),
            (
                "commands: [{command: make}]",
                (
                    "p.yaml:1:22: commands[0].command: must be an object, not `make`; "
                    "write `run: …` for a shell command"
                ),
            ),
            (
                "commands: [{command: {type: exec, program: 5}}]",
                (
                    "p.yaml:1:44: commands[0].command.program: must be a text, not `5`; "
                    'put it in quotes: "5"'
                ),
            ),
            (
                "commands: [{run: a, name: 5}]",
                (
                    "p.yaml:1:27: commands[0].name: must be a text, not `5`; "
                    "begin it with a letter, like `step 5`: a number is the index of a command"
                ),
            ),
            (
                "commands: [{run: a, metadata: {tag: x}}]",
                "p.yaml:1:32: commands[0].metadata.tag: unknown field `tag`; did you mean `tags`?",
            ),
            (
                "commands: [make]",
                (
                    "p.yaml:1:12: commands[0]: a command must be an object, not `make`; "
                    "write `run: make`"
                ),
            ),
            (
                "commands: [5]",
                "p.yaml:1:12: commands[0]: a command must be an object, not `5`",
            ),
            ("commands: x", "p.yaml:1:11: commands: must be a list, not `x`"),
            (
                "commands: []",
                "p.yaml:1:11: commands: a plan needs at least one command, this one has none",
            ),
            (
                "commands: [{run: a, exec: [b]}]",
                "p.yaml:1:21: commands[0].exec: `run` is there too; keep one of them",
            ),
            (
                "commands: [{script: a, shell: b}]",
                "p.yaml:1:24: commands[0].shell: goes with `run`, not with `script`",
            ),
            (
                "commands: [{run: [a]}]",
                (
                    "p.yaml:1:18: commands[0].run: must be a text, not a list; "
                    "write `exec: …` for a list, or put the text in quotes"
                ),
            ),
            (
                "commands: [{run: {a: b}}]",
                (
                    "p.yaml:1:18: commands[0].run: must be a text, not an object; "
                    "put the text in quotes: YAML reads `{` as the beginning of more than a text"
                ),
            ),
            (
                "commands: [{script: [make, {a: b}]}]",
                (
                    "p.yaml:1:28: commands[0].script[1]: must be a text, not an object; "
                    "put the text in quotes: YAML reads `{` as the beginning of more than a text"
                ),
            ),
            (
                "commands:\n- script: |\n    make\n    make test\n",
                (
                    "p.yaml:2:11: commands[0].script: must be a script file and its arguments, "
                    "not several lines; lines of a shell go below `run: |`"
                ),
            ),
            (
                "commands: [{script: './a \"b'}]",
                (
                    "p.yaml:1:21: commands[0].script: can't be split into words: "
                    'no closing quotation in `./a "b`'
                ),
            ),
            (
                "commands: [{script: a, args: {b: c}}]",
                (
                    "p.yaml:1:30: commands[0].args: must be a text, not an object; "
                    "put the text in quotes: YAML reads `{` as the beginning of more than a text"
                ),
            ),
            (
                "commands: [{exec: [a], args: [b]}]",
                (
                    "p.yaml:1:24: commands[0].args: goes with `script`, not with `exec`; "
                    "write them in `exec`"
                ),
            ),
            (
                "commands: [{run: a, retries: 3}]",
                (
                    "p.yaml:1:21: commands[0].retries: unknown field `retries`; "
                    "`cloudops resume` runs again what has not completed"
                ),
            ),
            (
                "commands: [{run: a, tags: {team: web}}]",
                (
                    "p.yaml:1:21: commands[0].tags: unknown field `tags`; "
                    "a plan has `metadata: {tags: {…}}`"
                ),
            ),
            (
                "tags: [web]\ncommands: [{run: a}]",
                "p.yaml:1:1: tags: unknown field `tags`; a plan has `metadata: {tags: {…}}`",
            ),
            (
                "commands: [{run: a, continue-on-error: true}]",
                (
                    "p.yaml:1:21: commands[0].continue-on-error: unknown field "
                    "`continue-on-error`; with `strategy: {type: serial, stop_on_error: false}` "
                    "all commands run"
                ),
            ),
            (
                "stop_on_error: false\ncommands: [{run: a}]",
                (
                    "p.yaml:1:1: stop_on_error: unknown field `stop_on_error`; with "
                    "`strategy: {type: serial, stop_on_error: false}` all commands run"
                ),
            ),
            (
                "max_concurrency: 4\ncommands: [{run: a}]",
                (
                    "p.yaml:1:1: max_concurrency: unknown field `max_concurrency`; "
                    "write `strategy: {type: parallel, max_concurrency: …}`"
                ),
            ),
            (
                "name: Release\ncommands: [{run: a}]",
                "p.yaml:1:1: name: unknown field `name`; a plan has a `description`",
            ),
            ("steps: []", "p.yaml:1:1: steps: unknown field `steps`; did you mean `commands`?"),
            (
                "commands: [{run: a, when: always}]",
                (
                    "p.yaml:1:21: commands[0].when: unknown field `when`; "
                    "write `run: if …; then …; fi`"
                ),
            ),
            (
                "commands: [{run: a, vars: {}}]",
                "p.yaml:1:21: commands[0].vars: unknown field `vars`; did you mean `env`?",
            ),
            (
                "commands: [{exec: [a, {b: c}]}]",
                (
                    "p.yaml:1:23: commands[0].exec[1]: must be a text, not an object; "
                    "put the text in quotes: YAML reads `{` as the beginning of more than a text"
                ),
            ),
            (
                "commands: [{exec: 'a \"b'}]",
                (
                    "p.yaml:1:19: commands[0].exec: can't be split into words: "
                    'no closing quotation in `a "b`'
                ),
            ),
            (
                "commands: [{aws: aws s3 ls}]",
                (
                    "p.yaml:1:18: commands[0].aws: `aws` itself is not part of it; "
                    "begin with the service, like `s3 ls`"
                ),
            ),
            (
                "commands: [{run: a, timeout: soon}]",
                (
                    "p.yaml:1:30: commands[0].timeout: must be a duration, not `soon`; "
                    "like 30s or 1h 30m"
                ),
            ),
            (
                "commands: [{run: a, timeout: 1s, timeout_ms: 1}]",
                "p.yaml:1:21: commands[0].timeout: `timeout_ms` is there too; keep one of them",
            ),
            (
                "commands: [{run: a, timeout: 0s}]",
                "p.yaml:1:30: commands[0].timeout: timeout_ms must be above 0, not 0",
            ),
            (
                "commands: [{run: a, env: [A]}]",
                "p.yaml:1:26: commands[0].env: must be an object, not a list",
            ),
            (
                "commands: [{run: a, env: {A: }}]",
                (
                    "p.yaml:1:30: commands[0].env.A: must be a text, not `null`; "
                    'write "" for an empty text, or leave the name out'
                ),
            ),
            (
                "commands: [{run: a, working_dir: ~/x}]",
                (
                    "p.yaml:1:34: commands[0].working_dir: can't begin with `~`, "
                    "which only a shell replaces; write the whole path"
                ),
            ),
            (
                "commands: [{run: a, env_from: [x]}]",
                (
                    "p.yaml:1:32: commands[0].env_from[0]: must name a block, like "
                    "`command-environment/deploy`, not `x`"
                ),
            ),
            (
                "commands: [{run: a}]\nenv_from: [x]",
                (
                    "p.yaml:2:12: env_from[0]: must name a block, like "
                    "`command-environment/deploy`, not `x`"
                ),
            ),
            (
                "commands: [{run: a}]\nid: x",
                "p.yaml:2:5: id: must be a UUID, not `x`",
            ),
            (
                "strategy: paralel\ncommands: [{run: a}]",
                "p.yaml:1:11: strategy: unknown kind `paralel`; did you mean `parallel`?",
            ),
            (
                "strategy: 5\ncommands: [{run: a}]",
                "p.yaml:1:11: strategy: must be an object, not `5`",
            ),
            (
                "strategy: {type: serial, max_concurrency: 1}\ncommands: [{run: a}]",
                (
                    "p.yaml:1:26: strategy.max_concurrency: unknown field `max_concurrency`; "
                    "known here: type, stop_on_error"
                ),
            ),
            (
                "strategy: {type: parallel, max_concurrency: 0}\ncommands: [{run: a}]",
                "p.yaml:1:45: strategy.max_concurrency: max_concurrency must be at least 1, not 0",
            ),
            (
                "strategy: {type: dependency_graph, dependencies: {a: []}}\ncommands: [{run: a}]",
                (
                    "p.yaml:1:54: strategy.dependencies.a: must be a whole number, not `a`; "
                    "it takes indices, counted from 0; names go into `needs`"
                ),
            ),
            (
                "strategy: {type: dependency_graph, dependencies: {0: [9]}}\ncommands: [{run: a}]",
                (
                    "p.yaml:1:54: strategy.dependencies.0: command 0 (a) waits for command 9, "
                    "but there is only command 0"
                ),
            ),
            (
                "strategy: serial\ncommands: [{run: a, needs: []}]",
                (
                    "p.yaml:2:21: commands[0].needs: `needs` goes with the strategy "
                    "dependency_graph, not with serial; leave out `strategy`"
                ),
            ),
            (
                "commands: [{run: a, name: build}, {run: b, needs: [biuld]}]",
                (
                    "p.yaml:1:52: commands[1].needs[0]: no command is named `biuld`; "
                    "did you mean `build`?"
                ),
            ),
            (
                "commands: [{run: a}, {run: b, needs: c}]",
                "p.yaml:1:38: commands[1].needs: no command is named `c`; no command has a `name`",
            ),
            (
                "commands: [{run: a}, {run: b, needs: [2]}]",
                (
                    "p.yaml:1:38: commands[1].needs: command 1 (b) waits for command 2, "
                    "but there are only commands 0 to 1"
                ),
            ),
            (
                "commands: [{run: a, needs: [1.5]}]",
                (
                    "p.yaml:1:29: commands[0].needs[0]: must be the name or the index "
                    "of a command, not `1.5`"
                ),
            ),
            (
                "commands: [{run: a, name: a, needs: a}]",
                "p.yaml:1:37: commands[0].needs: command 0 (a) waits for itself",
            ),
            (
                "commands: [{run: a, name: a, needs: b}, {run: b, name: b, needs: a}]",
                (
                    "p.yaml:1:37: commands[0].needs: commands wait for each other in a cycle: "
                    "0 (a) -> 1 (b) -> 0 (a)"
                ),
            ),
            (
                "commands: [{run: a, name: a}, {run: b, name: a, needs: 0}]",
                (
                    "p.yaml:1:46: commands[1].name: commands[0] is named `a` too; "
                    "`needs` must tell them apart"
                ),
            ),
            (
                "commands: [{run: a}]\ncommands: []",
                "p.yaml:2:1: `commands` is there twice; keep one of them",
            ),
            (
                "- run: a",
                "p.yaml:1:1: a plan must be an object with a list of `commands`; this is a list",
            ),
            (
                "text",
                "p.yaml:1:1: a plan must be an object with a list of `commands`; this is `text`",
            ),
            ("# nothing\n", "p.yaml:1:1: the file is empty"),
            ("commands: &a [*a]", "p.yaml:1:15: `*a` contains itself"),
            (
                "commands: *a",
                (
                    "p.yaml:1:11: there is no anchor `&a` above; "
                    "put the text in quotes, unless it is meant as an alias"
                ),
            ),
            ("a: 1\n---\nb: 2", "p.yaml:2:1: a second YAML document begins here"),
            (
                "a: !python/name:os 1",
                (
                    "p.yaml:1:4: the YAML tag `!python/name:os` means nothing here; "
                    "put a text that begins with `!` in quotes"
                ),
            ),
            ("a: !!set {b}", "p.yaml:1:4: the YAML tag `!!set` means nothing here"),
            ("? [a]\n: b", "p.yaml:1:3: a list or an object can't be a name"),
            (
                "a: {<<: 5}",
                "p.yaml:1:9: `<<` takes an object or a list of objects, like `*defaults`",
            ),
            (
                "commands: [{type: shell, run: ls}]",
                (
                    "p.yaml:1:13: commands[0].type: unknown field `type`; "
                    "it goes inside: `command: {type: …}`; shorter is `run: …`"
                ),
            ),
            ("[" * 200_000, "p.yaml:1:101: nested too deeply"),
            ("x-a: [[1]]\nx-b: " + "[" * 3_000, "p.yaml:2:105: nested too deeply"),
            ("- " * 500, "p.yaml:1:201: nested too deeply"),
            ('{"a": ' * 200, "p.yaml:1:601: nested too deeply"),
            ("a\x07: 1", "p.yaml:1:2: not YAML: control characters are not allowed"),
        ],
    )
    def test_one_mistake_is_told_with_its_place_and_what_was_meant(self, text, mistake):
        assert mistakes_of(text) == [mistake]
        with pytest.raises(InvalidPlanError) as refusal:
            parse_plan(text, "p.yaml")
        assert str(refusal.value) == f"Invalid execution plan: {mistake}"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("description: x", "commands (p.yaml:1:1)"),
            ("commands:", "commands (p.yaml:1:10)"),
            (
                "commands:\n  - name: x",
                "commands[0].command (p.yaml:2:5; say what to run, like `run: make test`)",
            ),
            ("commands: [{command: {type: exec}}]", "commands[0].command.program (p.yaml:1:22)"),
            (
                "commands: [{command: {program: ls}}]",
                "commands[0].command.type (p.yaml:1:22; one of script, exec, shell, aws_cli)",
            ),
            (
                "commands: [{command: {type: exec, program: ''}}]",
                "commands[0].command.program (p.yaml:1:44)",
            ),
            ("commands: [{run: ' '}]", "commands[0].run (p.yaml:1:18)"),
            ("commands: [{exec: []}]", "commands[0].exec (p.yaml:1:19)"),
            ("commands: [{exec: ['', a]}]", "commands[0].exec (p.yaml:1:19)"),
            (
                "commands: [{aws: s3}]",
                "commands[0].aws (p.yaml:1:18; `s3` needs an operation too, like `s3 ls`)",
            ),
            (
                "strategy: {stop_on_error: true}\ncommands: [{run: a}]",
                "strategy.type (p.yaml:1:11; one of serial, parallel, dependency_graph)",
            ),
        ],
    )
    def test_a_missing_field_is_named_with_its_place(self, text, message):
        with pytest.raises(MissingFieldError) as refusal:
            parse_plan(text, "p.yaml")
        assert str(refusal.value) == f"Missing required field: {message}"

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ('{run: "a\\0b"}', "p.yaml:1:18: commands[0].run: command contains a NUL byte"),
            (
                "{run: a, shell: python3}",
                "p.yaml:1:28: commands[0].shell: `python3` is not a shell, like bash, sh or zsh",
            ),
            (
                '{command: {type: exec, program: a, args: [b, "\\0"]}}',
                "p.yaml:1:57: commands[0].command.args[1]: contains a NUL byte",
            ),
            (
                '{script: a, args: [b, "\\0"]}',
                "p.yaml:1:30: commands[0].args: args[1] contains a NUL byte",
            ),
            (
                "{aws: --debug s3 ls}",
                (
                    "p.yaml:1:18: commands[0].aws: service can't be an option: `--debug`; "
                    "options belong in args"
                ),
            ),
            (
                "{run: a, env: {A=B: 1}}",
                "p.yaml:1:32: commands[0].env.A=B: env name `A=B` contains `=`",
            ),
        ],
    )
    def test_what_cant_be_a_command_is_told_with_its_place(self, entry, message):
        with pytest.raises(InvalidCommandError) as refusal:
            parse_plan(f"commands: [{entry}]", "p.yaml")
        assert str(refusal.value) == f"Invalid command format: {message}"

    @pytest.mark.parametrize(
        ("text", "place", "hint"),
        [
            ("commands:\n\t- run: a", "2:1", "indent with spaces, not with tabs"),
            ("commands:\n  - run: echo: x", "2:14", "put a text with `: ` in it in quotes"),
            ("commands:\n  - run: @x", "2:10", "put the text in quotes"),
            ("commands:\n  - run: a\n   name: b", "3:4", "look at the indentation"),
            ("commands:\n  - run: 'a", "2:12", "look at the indentation and the quotes"),
        ],
    )
    def test_what_isnt_yaml_is_told_with_a_hint(self, text, place, hint):
        [mistake] = mistakes_of(text)
        assert mistake.startswith(f"p.yaml:{place}: not YAML: ")
        assert hint in mistake

    @pytest.mark.parametrize(
        ("text", "excerpt"),
        [
            ("commands:\n  - run: a\n   name: b", ["   name: b", "   ^"]),
            ("commands:\n\t- run: a\r\n", ["    - run: a", "^"]),
            ("commands: '" + "x" * 100, ["x" * 60, " " * 60 + "^"]),
            ("a\x07: 1", ["a\ufffd: 1", " ^"]),
            ("commands: [{rum: a}]", []),
            ("", []),
        ],
    )
    def test_the_place_is_shown_where_no_field_tells_it(self, text, excerpt):
        assert check_plan(text, "p.yaml")[0].excerpt == excerpt

    @pytest.mark.parametrize(
        ("text", "mistake"),
        [
            ("{\n 'a': 1}", '2:2: not JSON: expected a text in double quotes, like "name"'),
            ('{"a": 1,}', '1:9: not JSON: expected a text in double quotes, like "name"'),
            ('{"a": 1 "b": 2}', "1:9: not JSON: expected `,` or `}`"),
            ('{"a" 1}', "1:6: not JSON: expected `:`"),
            ('{"a": [1 2]}', "1:10: not JSON: expected `,` or `]`"),
            ('{"a": 01}', "1:8: not JSON: expected `,` or `}`"),
            ('{"a": nul}', "1:7: not JSON: expected a JSON value"),
            ("", "1:1: not JSON: expected a JSON value"),
            ('{"commands": []} x', "1:18: not JSON: there is something after the end"),
            ('{"a": "b', "1:7: not JSON: Unterminated string"),
            ('{"a": ' + "9" * 5_000 + "}", "1:7: not JSON: the number is too long"),
            ("[" * 200_000, "1:101: not JSON: nested too deeply"),
            ('{"a": 1, "a": 2}', "1:10: `a` is there twice; keep one of them"),
        ],
    )
    def test_what_isnt_json_is_told_with_its_place(self, text, mistake):
        first = str(check_plan(text, "p.json")[0])
        if "twice" in mistake:
            first = next(str(m) for m in check_plan(text, "p.json") if "twice" in m.message)
        assert first.startswith(f"p.json:{mistake}")

    @pytest.mark.parametrize("name", ["cache", "description", "file", "runs-on", "stage", "image"])
    def test_nothing_is_guessed_from_a_name_that_is_like_no_field(self, name):
        (mistake,) = mistakes_of(f"commands: [{{run: a, {name}: x}}]")
        assert "; known here: run, script, exec, aws, id, name, " in mistake

    def test_all_mistakes_of_a_file_are_listed_in_order(self):
        text = textwrap.dedent("""\
            descripton: x
            strategy: {type: dependency_graph, dependencies: {0: [0]}}
            commands:
              - {run: a, nam: x, timeout: soon}
              - {exec: [], env: {A=B: "\\0"}, timeout_ms: -1}
              - {command: {type: exec, program: "", args: ["\\0"]}}
              - {run: a, run: b}
            metadata: 5
        """)
        mistakes = check_plan(text, "p.yaml")
        assert [(m.line, m.field) for m in mistakes] == [
            (1, "descripton"),
            (2, "strategy.dependencies.0"),
            (4, "commands[0].nam"),
            (4, "commands[0].timeout"),
            (5, "commands[1].exec"),
            (5, "commands[1].env.A=B"),
            (5, "commands[1].env.A=B"),
            (5, "commands[1].timeout_ms"),
            (6, "commands[2].command.program"),
            (6, "commands[2].command.args[0]"),
            (7, ""),
            (8, "metadata"),
        ]
        with pytest.raises(InvalidPlanError) as refusal:
            parse_plan(text, "p.yaml")
        message = str(refusal.value)
        assert message.startswith("Invalid execution plan: 12 mistakes\n  p.yaml:1:1: descripton: ")
        assert all(f"\n  {mistake}" in message for mistake in mistakes)

    def test_a_wrong_type_hides_no_mistake_beside_it(self):
        text = textwrap.dedent("""\
            strategy: {type: dependency_graph, dependencies: {0: [7], x: [1], 1: [y], 2: [2]}}
            commands:
              - {run: a, env: {A=B: "", E: [1]}, timeout: 2h, working_dir: 5}
              - {command: {type: shel, command: x}, env: {A=B: ""}}
              - {command: {type: exec, program: ""}, env_from: [nothing, 5]}
        """)
        mistakes = check_plan(text, "p.yaml", ExecutionConfig())
        assert [(m.line, m.field) for m in mistakes] == [
            (1, "strategy.dependencies.0"),
            (1, "strategy.dependencies.x"),
            (1, "strategy.dependencies.1[0]"),
            (1, "strategy.dependencies.2"),
            (3, "commands[0].env.A=B"),
            (3, "commands[0].env.E"),
            (3, "commands[0].timeout"),
            (3, "commands[0].working_dir"),
            (4, "commands[1].command.type"),
            (4, "commands[1].env.A=B"),
            (5, "commands[2].command.program"),
            (5, "commands[2].env_from[1]"),
        ]

    def test_more_mistakes_than_anyone_reads_are_counted(self):
        with pytest.raises(InvalidPlanError, match=r"30 mistakes\n(.*\n){20}  and 10 more$"):
            parse_plan("commands:\n" + "- {run: ''}\n" * 30)

    def test_a_mistake_in_a_merged_part_is_told_where_it_is_written(self):
        text = "x-a: &a\n  timeout_ms: soon\ncommands:\n- {<<: *a, run: x}\n- {<<: *a, run: y}\n"
        places = [(m.line, m.field) for m in check_plan(text)]
        assert places == [(2, "commands[0].timeout_ms"), (2, "commands[1].timeout_ms")]

    def test_columns_count_characters(self):
        [mistake] = check_plan('{"commands": [{"name": "é😀", "run": ""}]}', "p.json")
        assert (mistake.line, mistake.column) == (1, 37)
        [mistake] = check_plan("# é😀\r\ncommands: [{name: é😀, run: ''}]")
        assert (mistake.line, mistake.column) == (2, 28)

    def test_timeouts_above_the_maximum_are_mistakes_if_a_configuration_is_given(self):
        text = "commands: [{run: a, timeout: 2s}]"
        assert check_plan(text) == []
        config = ExecutionConfig(default_timeout_ms=1, max_timeout_ms=1_999)
        [mistake] = check_plan(text, "p", config)
        assert (mistake.field, mistake.message, mistake.hint) == (
            "commands[0].timeout",
            "Timeout exceeds maximum allowed: 2000ms > 1999ms",
            "CLOUDOPS_MAX_TIMEOUT_MS raises that",
        )
        with pytest.raises(InvalidPlanError, match=r"p:1:30: .*2000ms > 1999ms") as refusal:
            parse_plan(text, "p", config)
        assert refusal.value.mistakes == (mistake,)
        assert pickle.loads(pickle.dumps(refusal.value)).mistakes == (mistake,)

    def test_a_single_request_has_no_needs(self):
        [mistake] = check_request("run: a\nneeds: [b]", "r.yaml")
        assert str(mistake) == "r.yaml:2:1: needs: only a command of a plan can wait for others"

    def test_a_requests_mistakes_are_validation_errors_of_no_plan(self):
        for text, error in [
            ("run: a\ntimeout_ms: x", ValidationError),
            ("run: ''", MissingFieldError),
            ('run: "\\0"', InvalidCommandError),
            ("[]", ValidationError),
            ("run: ''\nid: 5", ValidationError),
        ]:
            with pytest.raises(ValidationError) as refusal:
                parse_request(text)
            assert type(refusal.value) is error

    def test_an_alias_that_grows_exponentially_costs_nothing(self):
        def spent_on(doublings: int) -> float:
            lines = ["x-0: &x0 [a, b]"]
            lines += [f"x-{i}: &x{i} [*x{i - 1}, *x{i - 1}]" for i in range(1, doublings)]
            text = "\n".join([*lines, f"commands: [{{run: a, env: *x{doublings - 1}}}]"])
            assert len(check_plan(text)) == 1
            return cpu_seconds(lambda: check_plan(text))

        assert spent_on(60) < LINEAR * spent_on(6)

    def test_a_chain_of_aliases_is_not_followed_without_end(self):
        lines = ["x-0: &x0 [a]"] + [f"x-{i}: &x{i} [*x{i - 1}]" for i in range(1, 5_000)]
        [mistake] = check_plan("\n".join([*lines, "commands: [{run: a}]"]))
        assert mistake.message == "nested too deeply"

    @given(st.text(max_size=60))
    def test_any_text_gives_a_plan_or_mistakes(self, text):
        for source in ("p.yaml", "p.json"):
            assert check_plan(text, source)

    @given(st.data())
    def test_a_plan_file_damaged_anywhere_gives_a_plan_or_mistakes(self, data):
        position = data.draw(st.integers(0, len(WHOLE)))
        length = data.draw(st.integers(0, 8))
        damage = data.draw(st.text("[]{}:-&*!|>'\"#%@` \t\n0aß\0", max_size=4))
        text = WHOLE[:position] + damage + WHOLE[position + length :]
        mistakes = check_plan(text)
        for mistake in mistakes:
            assert 1 <= mistake.line <= text.count("\n") + 2
            assert mistake.column >= 1
        if not mistakes:
            parse_plan(text).validate(ExecutionConfig())


NUMBERED = """\
commands:
  - {name: "1", run: a}
  - {name: "2", run: b}
  - {name: "3", run: c, NEEDS}
"""


def numbered(needs):
    return NUMBERED.replace("NEEDS", needs)


class TestNumbersAndNames:
    @pytest.mark.parametrize(
        ("needs", "mistake"),
        [
            (
                "needs: 1",
                (
                    "p.yaml:4:32: commands[2].needs: `1` is ambiguous: it is the name of "
                    "commands[0], and the index of commands[1] (counted from 0), which is named "
                    '`2`; write the name of the one that you mean in quotes: "1" or "2"'
                ),
            ),
            (
                "needs: [3]",
                (
                    "p.yaml:4:33: commands[2].needs[0]: `3` is ambiguous: it is the name of "
                    "commands[2], and no command has the index 3 (counted from 0); "
                    'write the name of the one that you mean in quotes: "3"'
                ),
            ),
        ],
    )
    def test_a_number_that_is_a_name_too_is_refused_with_both_readings(self, needs, mistake):
        assert mistakes_of(numbered(needs)) == [mistake]
        as_json = json.dumps(yaml.safe_load(numbered(needs)))
        [told] = check_plan(as_json, "p.json")
        assert told.message in mistake

    @pytest.mark.parametrize(("needs", "waits_for"), [('"1"', [0]), ("['2', \"1\"]", [1, 0])])
    def test_a_name_in_quotes_is_a_name(self, needs, waits_for):
        plan = parse_plan(numbered(f"needs: {needs}"))
        assert plan.strategy.dependencies == {2: waits_for}

    def test_a_number_that_is_the_name_of_the_same_command_is_clear(self):
        plan = parse_plan("commands: [{run: a, name: '0'}, {run: b, name: '1', needs: 0}]")
        assert plan.strategy.dependencies == {1: [0]}

    def test_a_number_is_compared_with_names_as_it_is_written(self):
        text = "commands: [{run: a, name: '01'}, {run: b}, {run: c, needs: 01}]"
        [mistake] = mistakes_of(text)
        assert "`01` is ambiguous: it is the name of commands[0], and the index of" in mistake
        assert mistake.endswith('in quotes: "01" or give commands[1] a name')
        text = "commands: [{run: a, name: '1:30'}, {run: b, needs: 1:30}]"
        assert "`1:30` is ambiguous: it is the name of commands[0], and" in mistakes_of(text)[0]

    def test_an_index_in_quotes_is_told_what_it_would_be_without(self):
        [mistake] = mistakes_of("commands: [{run: a, name: x}, {run: b, needs: '0'}]")
        assert mistake.endswith(
            "no command is named `0`; without quotes it is the index of commands[0] "
            "(counted from 0), which is named `x`"
        )
        [mistake] = mistakes_of(
            f"commands: [{{run: a, name: x}}, {{run: b, needs: '{'9' * 5000}'}}]"
        )
        assert mistake.endswith("known here: x")

    def test_numbers_in_dependencies_are_no_names(self):
        text = (
            "strategy: {type: dependency_graph, dependencies: {2: [1]}}\n"
            "commands: [{run: a, name: '1'}, {run: b, name: '2'}, {run: c, name: '3'}]"
        )
        at_key, in_list = mistakes_of(text)
        assert at_key == (
            "p.yaml:1:51: strategy.dependencies.2: `2` is ambiguous: it is the name of "
            "commands[1], and the index of commands[2] (counted from 0), which is named `3`; "
            "write `needs` with names in quotes, or give the commands other names"
        )
        assert in_list.startswith("p.yaml:1:55: strategy.dependencies.2[0]: `1` is ambiguous: ")

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("7", "begin it with a letter, like `step 7`: a number is the index of a command"),
            ("007", "begin it with a letter, like `step 007`: a number is the index of a command"),
            ("1.10", 'put it in quotes: "1.10"'),
            ("yes", 'put it in quotes: "yes"'),
        ],
    )
    def test_no_hint_for_a_name_leads_to_one_that_is_taken_for_an_index(self, name, hint):
        [mistake] = mistakes_of(f"commands: [{{run: a, name: {name}}}]")
        assert mistake.endswith(f"must be a text, not `{name}`; {hint}")

    @pytest.mark.parametrize("name", ["1.10", "yes", ".inf", "null"])
    def test_what_yaml_takes_for_another_type_needs_quotes(self, name):
        text = f"commands: [{{run: a, name: '{name}'}}, {{run: b, needs: [{name}]}}]"
        [mistake] = mistakes_of(text)
        assert f'not `{name}`; put it in quotes: "{name}"' in mistake

    @pytest.mark.parametrize("name", ["2024-01-01", "1e3", "=", "a1"])
    def test_a_date_and_the_like_is_a_text(self, name):
        plan = parse_plan(f"commands: [{{run: a, name: {name}}}, {{run: b, needs: {name}}}]")
        assert (plan.commands[0].name, plan.strategy.dependencies) == (name, {1: [0]})


def without_ids(plan):
    return plan.model_dump(exclude={"id": True, "commands": {"__all__": {"id"}}})


OPTIONAL = [
    *({name: None} for name in ExecutionPlan.model_fields if name != "commands"),
    {"metadata": {"source": None, "conversation_id": None, "tags": None}},
    {"strategy": {"type": "serial", "stop_on_error": None}},
    {"strategy": {"type": "dependency_graph", "dependencies": None}},
    {"strategy": {"type": "dependency_graph", "dependencies": {"0": None}}},
    {"strategy": {"type": "parallel", "max_concurrency": None}},
    *(
        {"commands": [{"run": "a", name: None}]}
        for name in (*ExecutionRequest.model_fields, "needs", "timeout", "shell", "interpreter")
    ),
    {"commands": [{"run": "a", "script": None, "exec": None, "aws": None, "profile": None}]},
    {"commands": [{"run": "a", "metadata": {"source": None, "tags": None}}]},
    {"commands": [{"command": {"type": "shell", "command": "a", "shell": None}}]},
    {"commands": [{"command": {"type": "exec", "program": "a", "args": None}}]},
    {"commands": [{"command": {"type": "script", "path": "a", "interpreter": None}}]},
    {"commands": [{"aws": "s3 ls", "region": None, "profile": None}]},
]


def without_nulls(value):
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(item) for key, item in value.items() if item is not None}


class TestNulls:
    @pytest.mark.parametrize("fields", OPTIONAL)
    def test_an_optional_field_that_is_null_is_absent(self, fields):
        written = {"commands": [{"run": "a"}], **fields}
        absent = without_ids(parse_plan(json.dumps(without_nulls(written)), "p.json"))
        as_json, as_yaml = json.dumps(written), yaml.safe_dump(written)
        empty = as_yaml.replace("null", "")
        assert as_yaml != empty
        for text, source in [(as_json, "p.json"), (as_yaml, "p.yaml"), (empty, "p.yaml")]:
            assert without_ids(parse_plan(text, source)) == absent
        jsonschema.validate(written, json_schema("plan"))

    def test_a_request_with_nulls_is_read(self):
        fields = dict.fromkeys([*ExecutionRequest.model_fields, "needs", "timeout"])
        request = parse_request(json.dumps({**fields, "run": "a"}))
        assert request.command == ShellCommand(command="a")
        fields.pop("needs")
        jsonschema.validate({**fields, "run": "a"}, json_schema("request"))

    def test_null_needs_make_no_graph_and_add_nothing(self):
        assert parse_plan("commands: [{run: a}, {run: b, needs: }]").strategy == SerialStrategy()
        plan = parse_plan(
            "strategy: {type: dependency_graph, dependencies: }\n"
            "commands: [{run: a}, {run: b, needs: 0}, {run: c, needs: }]"
        )
        assert plan.strategy.dependencies == {1: [0]}

    def test_a_null_takes_back_what_a_merged_part_says(self):
        text = "x-a: &a {timeout: 1s, env: {A: b}}\ncommands: [{<<: *a, run: a, env: , timeout: }]"
        [request] = parse_plan(text).commands
        assert (request.env, request.timeout_ms) == ({}, None)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("commands: [{run: }]", "commands[0].run (p.yaml:1:18)"),
            ("commands: [{run: , script: }]", "commands[0].run (p.yaml:1:18)"),
            (
                "commands: [{command: }]",
                "commands[0].command (p.yaml:1:22; say what to run, like `run: make test`)",
            ),
            (
                "commands: [{command: {type: exec, program: }}]",
                "commands[0].command.program (p.yaml:1:44)",
            ),
            (
                "strategy: {type: }\ncommands: [{run: a}]",
                "strategy.type (p.yaml:1:18; one of serial, parallel, dependency_graph)",
            ),
        ],
    )
    def test_a_required_field_that_is_null_is_missing(self, text, message):
        with pytest.raises(MissingFieldError) as refusal:
            parse_plan(text, "p.yaml")
        assert str(refusal.value) == f"Missing required field: {message}"

    @pytest.mark.parametrize("field", ["enviroment", "comands", "tags"])
    def test_an_unknown_field_that_is_null_is_refused(self, field):
        assert "unknown field" in mistakes_of(f"commands: [{{run: a}}]\n{field}:")[0]
        assert "unknown field" in mistakes_of(f"commands: [{{run: a, {field}: }}]")[0]

    def test_a_variable_and_a_tag_that_are_null_are_refused(self):
        told = mistakes_of("commands: [{run: a, env: {A: null}, metadata: {tags: {b: }}}]")
        hint = '; write "" for an empty text, or leave the name out'
        assert [mistake.endswith(f"must be a text, not `null`{hint}") for mistake in told] == [
            True
        ] * 2

    @pytest.mark.parametrize("null", ["null", "~"])
    def test_a_null_that_is_a_name_is_ambiguous(self, null):
        text = f"commands: [{{run: a, name: '{null}'}}, {{run: b, needs: {null}}}]"
        [mistake] = mistakes_of(text)
        assert mistake == (
            f"p.yaml:1:{text.rindex(null) + 1}: commands[1].needs: `{null}` is ambiguous: "
            f'it is a name, and YAML\'s null; put the name in quotes: "{null}"'
        )


class TestFiles:
    def test_a_plan_and_a_request_are_loaded_from_files(self, tmp_path):
        (tmp_path / "plan.yaml").write_text(WHOLE, encoding="utf-8")
        assert load_plan(tmp_path / "plan.yaml").description == "Release"
        (tmp_path / "request.json").write_text('{"run": "a"}')
        assert load_request(str(tmp_path / "request.json")).command == ShellCommand(command="a")

    @pytest.mark.parametrize(
        ("load", "error"), [(load_plan, InvalidPlanError), (load_request, ValidationError)]
    )
    def test_what_cant_be_read_is_told(self, load, error, tmp_path):
        latin = tmp_path / "latin.yaml"
        latin.write_bytes("name: é\nrun: ".encode() + b"caf\xe9\n")
        for path, says in [
            (tmp_path / "none.yaml", "none.yaml: no such file or directory"),
            (tmp_path, ": is a directory"),
            (latin, "latin.yaml:2:9: not UTF-8; save the file in that encoding"),
            ("a\0b", "null byte"),
        ]:
            with pytest.raises(error, match=says) as refusal:
                load(path)
            assert type(refusal.value) is error

    def test_a_file_without_permission_is_told(self, directory_of_nobody):
        closed = directory_of_nobody / "closed.yaml"
        closed.touch(mode=0)
        with pytest.raises(InvalidPlanError, match=r"closed.yaml: permission denied"):
            load_plan(closed)

    def test_messages_name_the_file(self, tmp_path):
        file = tmp_path / "bad.yaml"
        file.write_text("commands:\n- run: a\n  nmae: b\n")
        with pytest.raises(InvalidPlanError) as refusal:
            load_plan(file)
        assert f"{file}:3:3: commands[0].nmae: " in str(refusal.value)


class TestSchema:
    @pytest.mark.parametrize("kind", ["plan", "request"])
    def test_it_is_a_json_schema(self, kind):
        schema = json_schema(kind)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert json.loads(json.dumps(schema)) == schema
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    @pytest.mark.parametrize(
        "text",
        [
            WHOLE,
            "commands: [{run: a}]",
            "{strategy: parallel, commands: [{aws: s3 ls, timeout: 5}], x-y: {}}",
            '{"$schema": "x", "commands": [{"command": {"type": "exec", "program": "a"}}]}',
            "commands: [{script: a -n 5}, {script: [a, -n, 5], args: [6]}, {script: a, args: -n}]",
            (
                "{strategy: {type: dependency_graph, dependencies: {'1': [0]}},"
                " commands: [{run: a}, {exec: [b, 5], needs: 0, timeout: {secs: 1}}]}"
            ),
        ],
    )
    def test_what_the_loader_takes_the_schema_takes(self, text):
        assert check_plan(text) == []
        jsonschema.validate(yaml.safe_load(text), json_schema("plan"))

    @pytest.mark.parametrize(
        "text",
        [
            "{}",
            "commands: x",
            "commands: [{}]",
            "commands: [{run: a, exec: [b]}]",
            "commands: [{rum: a}]",
            "commands: [{run: a, timeout_ms: soon}]",
            "{commands: [{run: a}], strategy: paralel}",
            "{commands: [{run: a}], strategy: {type: parallel, max_concurrency: 0}}",
            "{commands: [{run: a}], comands: []}",
            "commands: [{command: {type: exec}}]",
            "commands: [{run: a, env: {A: [1]}}]",
        ],
    )
    def test_what_the_loader_refuses_the_schema_refuses(self, text):
        assert check_plan(text)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(text), json_schema("plan"))

    def test_a_request_has_a_schema_without_needs(self):
        schema = json_schema("request")
        jsonschema.validate({"run": "a", "timeout": "5s"}, schema)
        for wrong in ({"run": "a", "needs": ["b"]}, {"name": "x"}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(wrong, schema)

    @given(plans.filter(lambda plan: plan.commands))
    def test_every_dumped_plan_fits_the_schema_unless_it_is_refused(self, plan):
        document = plan.model_dump_json()
        if not check_plan(document):
            jsonschema.validate(json.loads(document), json_schema("plan"))

    def test_fields_are_described(self):
        request = json_schema("plan")["$defs"]["ExecutionRequest"]["properties"]
        for field in ("run", "script", "exec", "aws", "needs", "timeout", "env", "name"):
            assert request[field]["description"]

    def test_callers_can_change_what_they_get(self):
        json_schema("plan")["properties"].clear()
        assert json_schema("plan")["properties"]


def test_what_a_plan_costs_to_load_grows_as_its_commands_do():
    entry = (
        "  - {{name: c{0}, run: echo {0} && make, env: {{A: {0}, B: two}}, timeout: 30s, "
        "working_dir: /tmp, metadata: {{tags: {{a: b}}}}, needs: {1}}}"
    )

    def spent_on(count: int) -> float:
        lines = [entry.format(i, f"[c{i - 1}]" if i else "[]") for i in range(count)]
        text = "\n".join(["commands:", *lines])
        assert parse_plan(text).strategy.dependencies[count - 1] == [count - 2]
        return cpu_seconds(lambda: parse_plan(text))

    assert spent_on(1_000) < LINEAR * spent_on(100)


def test_reading_plans_imports_neither_prefect_nor_networkx():
    code = (
        "import sys, cloudops_prefect.planfile as p\n"
        "p.parse_plan('commands: [{run: a, name: a}, {run: b, needs: a}]')\n"
        "print(sorted({'prefect', 'networkx', 'pydantic_settings', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("offset", "place"), [(0, (1, 1)), (1, (1, 2)), (2, (2, 1)), (3, (3, 1)), (5, (3, 3))]
)
def test_lines_and_columns_count_from_1(offset, place):
    assert line_and_column("a\n\nbc", offset) == place
