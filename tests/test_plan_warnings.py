"""Warnings of a plan file: what nothing expands, with its place and what to write instead."""

import json
import re
from pathlib import Path

import pytest
import yaml

from cloudops_prefect.cli import starter
from cloudops_prefect.cli.app import run_tokens
from cloudops_prefect.cli.plan_warnings import print_some_warnings
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.planfile import check_plan, load_plan_and_warnings, parse_plan, plan_warnings

ROOT = Path(__file__).parents[1]
IN_QUOTES = "or put single quotes around what is meant as it is"
AS_RUN = "write `run: …`, which a shell reads"
VALUE = "write the value itself"
PLAN = """\
commands:
  - name: count
    exec: "cat x | wc"
    env:
      PATH: "/opt/bin:$PATH"
"""
WARNINGS = [
    (
        "plan.yaml:3:11: commands[0].exec: no shell reads this: the program gets `|` as written; "
        f"write `run: cat x | wc`, {IN_QUOTES}"
    ),
    (
        "plan.yaml:5:13: commands[0].env.PATH: nothing expands `$PATH` here; write the whole "
        'value, or let a shell set it: `run: export PATH="/opt/bin:$PATH"; …`'
    ),
]


def warnings_of(text):
    assert check_plan(text, "p.yaml") == []
    return [str(warning) for warning in plan_warnings(text, "p.yaml", ExecutionConfig())]


def gets(what):
    return f"no shell reads this: the program gets {what} as written"


class TestPlaces:
    @pytest.mark.parametrize(
        ("entry", "at", "field", "message", "hint"),
        [
            (
                "aws: s3 ls $BUCKET",
                "s3 ls",
                "aws",
                gets("`$BUCKET`"),
                f"write `run: aws s3 ls $BUCKET`, {IN_QUOTES}",
            ),
            ("aws: [s3, ls, $BUCKET]", "$BUCKET", "aws[2]", gets("`$BUCKET`"), AS_RUN),
            ('exec: [echo, "|", wc]', '"|"', "exec[1]", gets("`|`"), AS_RUN),
            (
                "exec: 'echo \"a: $B\"'",
                "'echo",
                "exec",
                gets("`$B`"),
                f"write `run: 'echo \"a: $B\"'`, {IN_QUOTES}",
            ),
            (
                "script: ./x.py $HOME > out",
                "./x",
                "script",
                gets("`$HOME`, `>`"),
                f"write `run: …`, {IN_QUOTES}",
            ),
            ("script: [./x.py, $HOME]", "$HOME", "script[1]", gets("`$HOME`"), AS_RUN),
            ("{script: ./x.py, args: [a, $HOME]}", "$HOME", "args[1]", gets("`$HOME`"), AS_RUN),
            (
                "{command: {type: exec, program: $HOME/x}}",
                "$HOME",
                "command.program",
                gets("`$HOME`"),
                AS_RUN,
            ),
            (
                "{command: {type: aws_cli, service: s3, operation: ls, args: [$B]}}",
                "$B",
                "command.args[0]",
                gets("`$B`"),
                AS_RUN,
            ),
            (
                "{command: {type: script, path: ./x, args: [$B]}}",
                "$B",
                "command.args[0]",
                gets("`$B`"),
                AS_RUN,
            ),
            (
                "exec: cd /srv",
                "cd",
                "exec",
                "`cd` is a part of a shell, not a program",
                "write `run: cd /srv`; `working_dir` sets the directory",
            ),
            (
                "exec: [FOO=bar, make]",
                "FOO",
                "exec[0]",
                "`FOO=…` is taken for the program, since no shell reads this",
                "variables go into `env`",
            ),
            (
                "{run: a, env: {A: ~/x}}",
                "~",
                "env.A",
                "nothing expands `~` here",
                'write the whole value, or let a shell set it: `run: export A="$HOME/x"; …`',
            ),
            (
                "{run: a, working_dir: /srv/$STAGE}",
                "/srv",
                "working_dir",
                "nothing expands `$STAGE` here",
                "write the whole path, or change the directory in a shell: `run: cd … && …`",
            ),
            (
                "{run: a, working_dir: ~}",
                "~",
                "working_dir",
                "`~` alone is YAML's null, so that the field is absent",
                "write the whole path, or leave the field out",
            ),
            (
                "{run: a, output_log_path: $(date).log}",
                "$(date",
                "output_log_path",
                "nothing expands `$(…)` here",
                "write the whole path",
            ),
            (
                "{script: a, interpreter: $VENV/bin/python}",
                "$VENV",
                "interpreter",
                "nothing expands `$VENV` here",
                VALUE,
            ),
            (
                "{aws: s3 ls, region: $AWS_REGION}",
                "$AWS",
                "region",
                "nothing expands `$AWS_REGION` here",
                VALUE,
            ),
            (
                "{run: a, name: 'deploy ${STAGE}'}",
                "'deploy",
                "name",
                "nothing expands `${STAGE}` here",
                VALUE,
            ),
            (
                "{run: a, env_from: [command-environment/$STAGE]}",
                "command-",
                "env_from[0]",
                "nothing expands `$STAGE` here",
                VALUE,
            ),
            (
                "{run: a, metadata: {tags: {v: $VERSION}}}",
                "$VERSION",
                "metadata.tags.v",
                "nothing expands `$VERSION` here",
                VALUE,
            ),
            (
                'run: echo "a # b"',
                "echo",
                "run",
                "a ` #` within its quotes ends the text, since YAML begins a comment there",
                "put the whole text in quotes, or below `run: |`",
            ),
        ],
    )
    def test_a_warning_has_its_place_and_what_to_write(self, entry, at, field, message, hint):
        column = len("- ") + entry.index(at) + 1
        told = warnings_of(f"commands:\n- {entry}\n")
        assert told == [f"p.yaml:2:{column}: commands[0].{field}: {message}; {hint}"]

    def test_what_is_written_of_the_plan_itself_counts_too(self):
        text = "description: v${V} in $HOME\nenv_from: [a/$B]\ncommands: [{run: a}]"
        assert warnings_of(text) == [
            "p.yaml:1:14: description: nothing expands `${V}` here; write the value itself",
            "p.yaml:2:12: env_from[0]: nothing expands `$B` here; write the value itself",
        ]

    def test_many_things_in_one_text_are_one_warning(self):
        [warning] = warnings_of("commands: [{exec: a $A $B $A | b > c < d && e}]")
        assert "the program gets `$A`, `$B`, `|`, `>`, … as written" in warning

    def test_the_hint_shows_a_line_only_if_it_is_right_as_it_is(self):
        for text, line in [
            ("exec: cat x | wc", "cat x | wc"),
            ("exec: 'cat \"x: y\" | wc'", "'cat \"x: y\" | wc'"),
            ("exec: \"cat 'a: b' | wc\"", "…"),
            (f"exec: cat {'x' * 60} | wc", "…"),
            ("exec: |\n    cat x |\n    wc\n", "…"),
        ]:
            [warning] = warnings_of(f"commands:\n- {text}\n")
            assert f"write `run: {line}`, or" in warning
            if line != "…":
                [request] = parse_plan(f"commands:\n- run: {line}\n").commands
                assert request.command.command in yaml.safe_load(text).values()

    @pytest.mark.parametrize(
        "entry",
        [
            "run: cat $HOME/*.txt | wc > x && echo ~",
            "{run: a, shell: sh, env: {A: b, API_TOKEN: x$ABC, LOG_FORMAT: $remote $TIME}}",
            "exec: [sh, -c, 'echo $HOME | wc']",
            "aws: ec2 describe-instances --query 'R[?State==`running`]'",
            "{name: echo $HOME, run: a}",
            "run: echo 'a' # it's fine",
            'run: |\n    echo "a # b"\n',
            "{run: a, env: , working_dir: , args: , metadata: }",
        ],
    )
    def test_what_is_meant_so_is_no_warning(self, entry):
        assert warnings_of(f"commands:\n- {entry}\n") == []

    def test_a_null_in_json_is_no_home_directory(self):
        text = '{"commands": [{"run": "a", "working_dir": null, "env": null}]}'
        assert plan_warnings(text, "p.json", ExecutionConfig()) == []

    def test_variables_that_are_secret_are_not_looked_at(self):
        text = "commands: [{run: a, env: {MY_PIN: x$ABC, API_TOKEN: x$ABC}}]"
        config = ExecutionConfig(redact_env=("*_PIN",))
        assert [one.field for one in plan_warnings(text, "p", config)] == [
            "commands[0].env.API_TOKEN"
        ]

    def test_a_plan_with_mistakes_has_no_warnings(self):
        assert plan_warnings("commands: [{exec: echo $A, timeout: soon}]") == []

    def test_examples_docs_and_the_starter_have_none(self, tmp_path):
        texts = [path.read_text() for path in (ROOT / "examples").glob("*.yaml")]
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
            text = page.read_text().replace("<!-- file: literal.yaml -->\n```yaml", "")
            texts += re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        starter.write(tmp_path / "plan.yaml")
        texts.append((tmp_path / "plan.yaml").read_text())
        assert len(texts) > 5
        assert [str(one) for text in texts for one in plan_warnings(text)] == []


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("plan.yaml")
    path.write_text(PLAN)
    return path


class TestCommandLine:
    def test_validate_prints_them_and_the_plan_is_valid(self, plan, capsys):
        assert run_tokens(["validate", "plan.yaml"]) == 0
        told = capsys.readouterr()
        assert told.out == "plan.yaml: valid, 1 command, serial\n"
        assert told.err.splitlines() == [f"warning: {warning}" for warning in WARNINGS]

    def test_they_are_in_json(self, plan, capsys):
        assert run_tokens(["validate", "--json", "plan.yaml"]) == 0
        validated = capsys.readouterr()
        assert validated.err == ""
        told = json.loads(validated.out)
        assert (told["valid"], told["commands"]) == (True, 1)
        assert told["warnings"][0] == {
            "file": "plan.yaml",
            "line": 3,
            "column": 11,
            "field": "commands[0].exec",
            "message": "no shell reads this: the program gets `|` as written",
            "hint": f"write `run: cat x | wc`, {IN_QUOTES}",
            "text": '    exec: "cat x | wc"',
        }
        assert run_tokens(["run", "--dry-run", "--json", "plan.yaml"]) == 0
        assert json.loads(capsys.readouterr().out)["warnings"] == told["warnings"]

    def test_a_dry_run_prints_them(self, plan, capsys):
        assert run_tokens(["run", "--dry-run", "plan.yaml"]) == 0
        told = capsys.readouterr()
        assert told.err.splitlines() == [f"warning: {warning}" for warning in WARNINGS]
        assert "nothing is started" in told.out

    def test_no_warning_shows_a_secret(self, plan, capsys):
        plan.write_text(
            "commands:\n"
            "- exec: curl -u me:hunter2-hunter2 $URL\n"
            "  env: {API_TOKEN: hunter2-hunter2}\n"
        )
        for options in ([], ["--json"]):
            assert run_tokens(["validate", *options, "plan.yaml"]) == 0
            told = "".join(capsys.readouterr())
            assert "hunter2" not in told
            assert "curl -u me:******** $URL" in told

    def test_other_commands_of_a_plan_do_not_print_them(self, plan, capsys):
        assert run_tokens(["graph", "plan.yaml"]) == 0
        assert "warning" not in capsys.readouterr().err

    def test_beside_a_run_there_are_not_too_many(self, plan, capsys):
        plan.write_text("commands:\n" + "- exec: echo $A\n" * 25)
        _, warnings = load_plan_and_warnings(plan)
        print_some_warnings(warnings, plan)
        *listed, last = capsys.readouterr().err.splitlines()
        assert len(listed) == 20
        assert last == "warning: and 5 more; to list them: cloudops validate plan.yaml"
