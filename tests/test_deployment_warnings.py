"""What is known of a plan that a worker would run in another way than its author expects."""

import os
from pathlib import Path

import pytest
from prefect.client.schemas.objects import WorkPool
from prefect.workers.process import ProcessWorker

from cloudops_prefect import ExecutionConfig, ExecutionPlan, ExecutionRequest
from cloudops_prefect.deployment_warnings import find_warnings
from cloudops_prefect.planfile import parse_plan


def pool_of(kind="process", *, variables=None, fixed=None) -> WorkPool:
    template = ProcessWorker.get_default_base_job_template()
    for name, default in (variables or {}).items():
        template["variables"]["properties"][name]["default"] = default
    template["job_configuration"] |= fixed or {}
    return WorkPool(name="pool", type=kind, base_job_template=template)


PROCESSES = pool_of()


def warnings_of(command: str, pool: WorkPool = PROCESSES, **environment) -> list[str]:
    """The warnings about the one command of a plan file."""
    plan = parse_plan(f"commands:\n  - {command}")
    return find_warnings(plan, pool, ExecutionConfig(**environment))


def uses_in(warning: str) -> list[str]:
    return [line.strip() for line in warning.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize(
    ("command", "use"),
    [
        ("{name: it, run: 'sqlite3 shop.db .dump > dump.sql'}", "no working_dir"),
        ("{name: it, run: make}", "no working_dir"),
        ("{name: it, run: 'make -C /srv/shop'}", "no working_dir"),
        ("{name: it, run: 'echo it; cd /srv/shop'}", "no working_dir"),
        ("{name: it, run: 'cd shop && make'}", "no working_dir"),
        ("""{name: it, run: 'cd "$(dirname "$0")" && make'}""", "no working_dir"),
        ("{name: it, run: cdrecord /srv/image}", "no working_dir"),
        ("{name: it, run: make, working_dir: sub}", "working_dir sub"),
        ("{name: it, script: scripts/it.sh}", "script scripts/it.sh"),
        ("{name: it, script: /srv/it.sh}", "no working_dir"),
        ("{name: it, script: it.sh, working_dir: sub}", "working_dir sub"),
        ("{name: it, exec: [bin/it]}", "exec bin/it"),
        ("{name: it, exec: [/srv/it]}", "no working_dir"),
        ("{name: it, exec: [terraform, apply]}", "no working_dir"),
        ("{name: it, aws: [s3, cp, dump.gz, 's3://backup/']}", "no working_dir"),
        ("{name: it, aws: [s3, cp, 's3://backup/dump.gz', .]}", "no working_dir"),
        ("{name: it, aws: [s3api, put-object, --body=dump.gz]}", "no working_dir"),
        ("{name: it, aws: [lambda, invoke, 'file://in.json']}", "no working_dir"),
        (
            "{name: it, run: make, working_dir: /srv, output_log_path: it.log}",
            "output_log_path it.log",
        ),
    ],
)
def test_a_command_that_may_depend_on_its_directory_is_named(command, use):
    (warning,) = warnings_of(command)
    assert uses_in(warning) == [f"it: {use}"]
    assert "a worker starts each run in a new temporary directory" in warning
    assert f"`working_dir: {Path.cwd()}`" in warning
    assert "`working_dir: /` says that a command needs no directory" in warning


@pytest.mark.parametrize(
    "command",
    [
        "{run: make, working_dir: /srv/shop}",
        "{run: df -h, working_dir: /}",
        "{script: it.sh, working_dir: /srv}",
        "{exec: [bin/it], working_dir: /srv}",
        "{run: make, working_dir: /srv, output_log_path: /var/log/it.log}",
        "{run: cd /srv/shop && make}",
        "{run: 'cd -- \"/srv/my shop\"; make'}",
        "{run: cd ~/shop && make}",
        "{run: 'cd \"$SHOP\" && make'}",
        '{run: "set -euo pipefail\\n\\n# the shop\\ncd /srv/shop\\nmake"}',
        "{run: 'set -e; cd /srv/shop; make'}",
        "{aws: s3 ls}",
        "{aws: [s3, sync, /srv/shop, 's3://backup/shop', --delete]}",
        "{aws: [ec2, describe-instances, --no-paginate]}",
        "{aws: [lambda, invoke, '--payload=file:///srv/in.json', /srv/out.json]}",
    ],
)
def test_a_command_that_names_its_directory_is_not(command):
    assert warnings_of(command) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("shop", "{}/shop"),
        ("my: shop", '"{}/my: shop"'),
        # It can't be written in a file.
        (b"d\xe9", "/srv/shop"),
    ],
)
def test_the_directory_of_the_example_is_a_yaml_value(tmp_path, monkeypatch, name, shown):
    directory = tmp_path / os.fsdecode(name)
    directory.mkdir()
    monkeypatch.chdir(directory)
    (warning,) = warnings_of("{run: make}")
    assert f"`working_dir: {shown.format(tmp_path)}`" in warning


@pytest.mark.parametrize(
    "pool",
    [
        pool_of(variables={"working_dir": "/srv"}),
        pool_of(fixed={"working_dir": "/srv"}),
        # The image of a container has a directory.
        pool_of("kubernetes"),
    ],
)
def test_a_pool_may_say_where_its_runs_start(pool):
    assert warnings_of("{run: make}", pool) == []


def timeouts(pool: WorkPool) -> list[str]:
    plan = parse_plan(
        """
        commands:
          - {name: long, run: make, working_dir: /, timeout: 15m}
          - {name: longest, run: make, working_dir: /, timeout: 1h}
          - {name: short, run: make, working_dir: /, timeout: 10m}
          - {name: default, run: make, working_dir: /}
        """
    )
    return find_warnings(plan, pool, ExecutionConfig(max_timeout_ms=3_600_000))


VARIABLE = "CLOUDOPS_MAX_TIMEOUT_MS"


@pytest.mark.parametrize(
    "pool",
    [
        pool_of(),
        pool_of("kubernetes"),
        pool_of(variables={"env": {"OTHER": "1"}}),
        pool_of(variables={"env": {VARIABLE: "{{ $MAXIMUM }}"}}),
    ],
)
def test_timeouts_above_the_default_maximum_need_a_worker_that_allows_them(pool):
    (warning,) = timeouts(pool)
    assert uses_in(warning) == ["long: timeout_ms 900000", "longest: timeout_ms 3600000"]
    assert warning.startswith(f"a worker refuses the plan unless its {VARIABLE} allows these")
    assert "the default is 600000:" in warning
    assert f"Set {VARIABLE}=3600000 in the worker's environment or in the `env` of the" in warning


@pytest.mark.parametrize(
    ("pool", "refused"),
    [
        (pool_of(variables={"env": {VARIABLE: "900000"}}), ["longest: timeout_ms 3600000"]),
        (pool_of(fixed={"env": {VARIABLE: 900_000}}), ["longest: timeout_ms 3600000"]),
        (
            pool_of(variables={"env": {VARIABLE: "9"}}, fixed={"env": {VARIABLE: "899999"}}),
            ["long: timeout_ms 900000", "longest: timeout_ms 3600000"],
        ),
    ],
)
def test_timeouts_above_the_maximum_of_the_pool_are_named(pool, refused):
    (warning,) = timeouts(pool)
    assert uses_in(warning) == refused
    assert warning.startswith("the workers refuse the plan, since the work pool sets ")
    assert f"Set {VARIABLE}=3600000 in the `env` of the work pool." in warning


def test_a_pool_may_allow_what_is_above_the_default():
    assert timeouts(pool_of(variables={"env": {VARIABLE: "3600000"}})) == []


def test_secrets_are_masked_and_commands_of_one_name_told_apart():
    plan = parse_plan(
        """
        commands:
          - {script: hunter2-hunter2.sh, env: {API_TOKEN: hunter2-hunter2}}
          - {name: twice, run: make}
          - {name: once, run: make, working_dir: /srv}
          - {name: twice, exec: [bin/x], output_log_path: x.log}
        """
    )
    (warning,) = find_warnings(plan, PROCESSES, ExecutionConfig())
    assert uses_in(warning) == [
        "********.sh: script ********.sh",
        "twice #1: no working_dir",
        "twice #3: exec bin/x",
        "twice #3: output_log_path x.log",
    ]


def test_of_a_large_plan_some_are_named():
    request = ExecutionRequest.model_validate({"command": {"type": "exec", "program": "make"}})
    plan = ExecutionPlan(commands=[request.model_copy(update={"name": str(i)}) for i in range(100)])
    (warning,) = find_warnings(plan, PROCESSES, ExecutionConfig())
    assert uses_in(warning) == [*(f"{i}: no working_dir" for i in range(20)), "and 80 more"]


def test_long_shell_text_is_looked_at_once():
    # A pattern that goes back for each line would not come to an end.
    plan = ExecutionPlan.model_validate(
        {"commands": [{"command": {"type": "shell", "command": "\n" * 100_000 + " " * 100_000}}]}
    )
    assert find_warnings(plan, PROCESSES, ExecutionConfig())
