"""Deployments on a process work pool, with a real server and a real worker."""

import json
import os
import re
import sqlite3
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4
from zoneinfo import ZoneInfo

import anyio
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker
from pydantic import SecretStr
from workers import POOL, ROOT, ask, clone, create_pool, environment, prefect, process_worker, until

from cloudops_prefect import (
    CommandEnvironment,
    ExecutionConfigBlock,
    ExecutionEngine,
    ExecutionPlan,
    ExecutionPlanBlock,
    ExecutionRequest,
    ExecutionStatus,
    ShellCommand,
    TimeoutTooLargeError,
    deploy_plan,
    load_plan,
    run_command,
    run_plan,
)
from cloudops_prefect.cli.app import run_tokens
from cloudops_prefect.parameters import parameters_of, request_ids

SECRET = "correct-horse-staple-battery"


@dataclass(frozen=True)
class Prefect:
    """The API, a clone that was deployed from, and a worker."""

    api: str
    home: Path

    def post(self, path: str, body: dict):
        answer = ask("POST", f"{self.api}{path}", body)
        assert answer.is_success, answer.text
        return answer.json()

    def get(self, path: str):
        answer = ask("GET", f"{self.api}{path}")
        assert answer.is_success, answer.text
        return answer.json()

    def deployment(self, name: str) -> dict:
        return self.get(f"/deployments/name/{name}")

    def start(self, name: str, parameters: dict) -> str:
        """Starts a run as the UI does; returns its id."""
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        return self.post(path, {"parameters": parameters})["id"]

    def ended(self, run_id: str) -> dict:
        until(lambda: self.get(f"/flow_runs/{run_id}")["end_time"])
        return self.get(f"/flow_runs/{run_id}")

    def runs(self, name: str, *states: str) -> list[dict]:
        wanted = {"deployments": {"id": {"any_": [self.deployment(name)["id"]]}}}
        if states:
            wanted["flow_runs"] = {"state": {"type": {"any_": list(states)}}}
        return self.post("/flow_runs/filter", wanted)

    def cloudops(self, *arguments: str | Path) -> tuple[int, str, str]:
        out, err = StringIO(), StringIO()
        with (
            temporary_settings({PREFECT_API_URL: self.api}),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code = run_tokens([*map(str, arguments)])
        return code, out.getvalue(), err.getvalue()

    def engine(self, ask):
        """What a new engine, which shares no files with the worker, answers."""

        async def answer():
            async with ExecutionEngine() as engine:
                return await ask(engine)

        with temporary_settings({PREFECT_API_URL: self.api}):
            return anyio.run(answer)


@pytest.fixture(scope="module")
def deployed(prefect_api, tmp_path_factory):
    home = tmp_path_factory.mktemp("worker")
    create_pool(prefect_api)
    copy = clone(tmp_path_factory.mktemp("clone"))
    # A run that waits for another to end outlives its schedule, so none is taken before its time.
    with process_worker(prefect_api, home, PREFECT_WORKER_PREFETCH_SECONDS="0"):
        prefect(prefect_api, home, "--no-prompt", "deploy", "--all", cwd=copy)
        yield Prefect(prefect_api, home)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.yaml"
    path.write_text("description: Tick\nmetadata: {tags: {team: ops}}\ncommands: [run: echo tick]")
    return path


@pytest.fixture(scope="module")
def kept(prefect_api, plan_file) -> Prefect:
    """A server with a deployment that nothing may change."""
    create_pool(prefect_api)
    server = Prefect(prefect_api, plan_file.parent)
    command = ["deploy", plan_file, "--name", "kept", "--work-pool", POOL]
    assert server.cloudops(*command, "--cron", "0 4 * * *")[0] == 0
    return server


def shell(command: str, **fields) -> dict:
    return {"command": {"type": "shell", "command": command}, **fields}


@pytest.mark.server
def test_a_command_from_the_form_runs_and_is_found_again(deployed):
    run = deployed.ended(deployed.start("run-command/run-command", {"request": shell("echo hi")}))
    assert (run["state_type"], run["name"]) == ("COMPLETED", "echo hi")
    assert run["tags"] == [f"cloudops-id:{run['id']}"]
    result = deployed.engine(lambda engine: engine.get_result(run["id"]))
    assert (str(result.id), str(result.execution_id)) == (run["id"], run["id"])
    assert (result.status, result.stdout) == (ExecutionStatus.COMPLETED, "hi\n")


@pytest.mark.server
def test_a_plan_without_ids_has_the_same_ids_for_whoever_looks(deployed):
    plan = {"commands": [shell("echo one"), shell("exit 3"), shell("echo never")]}
    plan["description"] = "Three of them"
    run = deployed.ended(deployed.start("run-plan/run-plan", {"plan": plan}))
    assert (run["state_type"], run["name"]) == ("FAILED", "Three of them")
    result = deployed.engine(lambda engine: engine.get_plan_result(run["id"]))
    assert [one.status for one in result.results] == ["completed", "failed", "cancelled"]
    assert [str(one.id) for one in result.results] == request_ids(FlowRun.model_validate(run))


@pytest.mark.server
def test_the_form_is_refused_before_a_run_exists(deployed):
    before = len(deployed.runs("run-command/run-command"))
    path = f"/deployments/{deployed.deployment('run-command/run-command')['id']}/create_flow_run"
    request = {"command": {"command": "echo hi"}}
    answer = ask("POST", f"{deployed.api}{path}", {"parameters": {"request": request}})
    assert answer.status_code in {409, 422}
    assert len(deployed.runs("run-command/run-command")) == before


@pytest.mark.server
def test_the_clone_brings_a_scheduled_plan(deployed):
    nightly = deployed.deployment("run-plan/nightly")
    assert [one["schedule"]["cron"] for one in nightly["schedules"]] == ["0 3 * * *"]
    assert nightly["work_pool_name"] == POOL
    plan = load_plan(ROOT / "examples" / "nightly.yaml")
    embedded = ExecutionPlan.model_validate(nightly["parameters"]["plan"])
    assert without_ids(parameters_of(plan)) == without_ids(parameters_of(embedded))


def without_ids(value):
    if isinstance(value, list):
        return [without_ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: without_ids(one) for key, one in value.items() if key != "id"}


@pytest.mark.server
def test_a_plan_runs_by_itself_until_its_schedule_is_changed(deployed, plan_file):
    paused = ["--name", "resting", "--work-pool", POOL, "--interval", "10s", "--paused"]
    assert deployed.cloudops("deploy", plan_file, *paused)[0] == 0
    name = "run-plan/ticking"
    command = ["deploy", plan_file, "--name", "ticking", "--work-pool", POOL]
    # One at a time, or a slow machine begins runs faster than it ends them.
    every = ["--interval", "10s", "--concurrency-limit", "1"]
    code, out, err = deployed.cloudops(*command, *every, "--json")
    assert code == 0, err
    made = deployed.deployment(name)
    assert json.loads(out)["id"] == made["id"]
    assert (made["entrypoint"], made["pull_steps"]) == ("cloudops_prefect.flows.run_plan", [])
    until(lambda: len(deployed.runs(name, "COMPLETED")) >= 2, 300)
    runs = deployed.runs(name, "COMPLETED")
    assert {run["name"] for run in runs} == {"Tick"}
    assert all({"auto-scheduled", "team:ops"} <= {*run["tags"]} for run in runs)
    assert deployed.runs("run-plan/resting") == []

    now = datetime.now(ZoneInfo("Europe/Berlin"))
    cron = f"0 {(now.hour + 12) % 24} * * *"
    code, _, err = deployed.cloudops(*command, "--cron", cron, "--timezone", "Europe/Berlin")
    assert code == 0, err
    (schedule,) = deployed.deployment(name)["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == (cron, True)
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    soon = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    waiting = [run["expected_start_time"] for run in deployed.runs(name, "SCHEDULED")]
    assert not [moment for moment in waiting if datetime.now(UTC).isoformat() < moment < soon]


@pytest.mark.server
def test_a_deployment_without_a_schedule_runs_by_name(deployed, plan_file):
    command = ["deploy", plan_file, "--name", "by-hand", "--work-pool", POOL]
    assert deployed.cloudops(*command)[0] == 0
    assert deployed.deployment("run-plan/by-hand")["schedules"] == []
    run = deployed.ended(deployed.start("run-plan/by-hand", {}))
    assert run["state_type"] == "COMPLETED"


@pytest.mark.server
@pytest.mark.parametrize(
    ("options", "schedule", "timezone"),
    [
        (["--cron", "0 3 * * *", "--timezone", "Europe/Berlin"], "0 3 * * *", "Europe/Berlin"),
        (["--cron", "@daily", "--paused"], "@daily", "UTC"),
        (["--interval", "6h", "--timezone", "Asia/Tokyo"], "every 6h", "Asia/Tokyo"),
        (["--rrule", "FREQ=WEEKLY;BYDAY=MO"], "FREQ=WEEKLY;BYDAY=MO", "UTC"),
    ],
)
def test_who_deploys_is_told_the_schedule_and_its_next_runs(
    kept, plan_file, options, schedule, timezone
):
    command = ["deploy", plan_file, "--name", "told", "--work-pool", POOL]
    code, out, _ = kept.cloudops(*command, *options, "--json")
    made = json.loads(out)
    runs = [datetime.fromisoformat(run) for run in made["next_runs"]]
    assert (code, len(runs)) == (0, 3)
    assert all(run > datetime.now(UTC) for run in runs)
    assert made["schedule"] == {options[0].strip("-"): options[1], "timezone": timezone}
    assert made["paused"] is ("--paused" in options)

    _, out, _ = kept.cloudops(*command, *options)
    told = [line[16:] for line in out.splitlines()[1:5]]
    paused = " (paused)" if made["paused"] else ""
    assert told[0] == f"{schedule} {timezone}{paused}"
    assert out.splitlines()[2][:16].strip() == ("Once resumed:" if paused else "Next runs:")
    for line, run in zip(told[1:], runs, strict=True):
        _, day, clock, offset, _ = line.split()
        shown = datetime.fromisoformat(f"{day}T{clock}{offset}")
        assert line.startswith(f"{run.astimezone(ZoneInfo(timezone)):%a} ")
        assert line.endswith(f" {timezone}")
        # An interval begins anew with each deployment.
        assert timedelta() <= shown - run.replace(microsecond=0) < timedelta(minutes=10)


@pytest.mark.server
@pytest.mark.parametrize(
    "options",
    [
        ["--cron", "30 2 * * *", "--timezone", "Europe/Berlin"],
        ["--interval", "25h", "--timezone", "Europe/Berlin"],
        ["--rrule", "FREQ=DAILY;BYHOUR=9;BYMINUTE=0;BYSECOND=0", "--timezone", "Asia/Tokyo"],
    ],
)
def test_the_next_runs_are_those_that_the_server_schedules(kept, plan_file, options):
    name = f"scheduled-{uuid4()}"
    command = ["deploy", plan_file, "--name", name, "--work-pool", POOL]
    _, out, _ = kept.cloudops(*command, *options, "--json")
    told = [datetime.fromisoformat(run) for run in json.loads(out)["next_runs"]]

    def scheduled() -> list[datetime]:
        runs = kept.runs(f"run-plan/{name}", "SCHEDULED")
        return sorted(datetime.fromisoformat(run["expected_start_time"]) for run in runs)

    until(lambda: len(scheduled()) >= 3)
    assert scheduled()[:3] == told
    assert kept.cloudops(*command)[0] == 0


@pytest.mark.server
def test_a_deployment_without_a_schedule_has_no_next_runs(kept, plan_file):
    command = ["deploy", plan_file, "--name", "told", "--work-pool", POOL, "--paused"]
    made = json.loads(kept.cloudops(*command, "--json")[1])
    assert (made["schedule"], made["next_runs"]) == (None, [])
    out = kept.cloudops(*command)[1]
    assert not [line for line in out.splitlines() if line.startswith(("Schedule:", "Next runs:"))]


BACKUP = """
commands:
  - {name: dump, run: "sqlite3 shop.db .dump > dump.sql"}
  - {name: compress, run: gzip dump.sql}
  - {name: upload, script: upload.sh, working_dir: /srv/shop}
"""


@pytest.mark.server
def test_who_deploys_commands_without_a_directory_is_warned(kept, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(BACKUP)
    deploy = ["deploy", plan, "--name", "backup", "--work-pool"]
    code, out, err = kept.cloudops(*deploy, POOL)
    assert (code, out.splitlines()[0]) == (0, "Deployed run-plan/backup")
    first, *lines = err.splitlines()
    assert first.startswith("warning: a worker starts each run in a new temporary directory, ")
    assert lines[:2] == ["  dump: no working_dir", "  compress: no working_dir"]
    assert "like `working_dir: " in err
    assert "upload" not in err

    _, out, err_beside_json = kept.cloudops(*deploy, POOL, "--json")
    assert json.loads(out)["warnings"] == [err.removeprefix("warning: ").rstrip("\n")]
    assert err_beside_json == err

    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["working_dir"]["default"] = "/srv/shop"
    pool = {"name": f"pool-{uuid4()}", "type": "process", "base_job_template": template}
    kept.post("/work_pools/", pool)
    assert kept.cloudops(*deploy, pool["name"])[2] == ""

    plan.write_text("commands: [{run: make, working_dir: /srv}, {run: cd /srv && make}]")
    assert kept.cloudops(*deploy, POOL)[2] == ""
    assert json.loads(kept.cloudops(*deploy, POOL, "--json")[1])["warnings"] == []


@pytest.mark.server
def test_who_deploys_is_warned_of_what_nothing_expands(kept, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("commands: [{exec: [echo, $HOME], working_dir: /}]")
    warning = f"{plan}:1:26: commands[0].exec[1]: no shell reads this: the program gets `$HOME`"
    deploy = ["deploy", plan, "--name", "literal", "--work-pool", POOL]
    code, out, err = kept.cloudops(*deploy, "--json")
    assert (code, len(err.splitlines())) == (0, 1)
    assert err.startswith(f"warning: {warning}")
    assert json.loads(out)["warnings"] == [err.removeprefix("warning: ").rstrip("\n")]


@pytest.mark.server
def test_who_deploys_from_python_is_warned_by_the_log(kept, caplog):
    request = ExecutionRequest(command=ShellCommand(command="make"))
    warnings: list[str] = []

    async def deploy(**options):
        await deploy_plan(
            ExecutionPlan(commands=[request]), name="python", work_pool=POOL, **options
        )

    with temporary_settings({PREFECT_API_URL: kept.api}):
        anyio.run(partial(deploy, warn=warnings.append))
        assert caplog.messages == []
        anyio.run(deploy)
    assert caplog.messages == warnings
    assert "make: no working_dir" in warnings[0]


@pytest.mark.server
def test_a_timeout_that_a_worker_refuses_comes_with_the_hint(deployed, tmp_path, monkeypatch):
    plan = tmp_path / "plan.yaml"
    plan.write_text("commands: [{name: long, run: make, working_dir: /, timeout: 15m}]")
    deploy = ["deploy", plan, "--name", "long", "--work-pool", POOL]
    hint = "CLOUDOPS_MAX_TIMEOUT_MS raises that"
    code, _, err = deployed.cloudops(*deploy)
    assert code == 2
    assert hint in err

    monkeypatch.setenv("CLOUDOPS_MAX_TIMEOUT_MS", "900000")
    code, _, err = deployed.cloudops(*deploy)
    assert code == 0
    assert "a worker refuses the plan unless its CLOUDOPS_MAX_TIMEOUT_MS allows" in err
    assert "  long: timeout_ms 900000" in err
    run = deployed.ended(deployed.start("run-plan/long", {}))
    assert run["state_type"] == "FAILED"
    refusal = "Timeout exceeds maximum allowed: 900000ms > 600000ms (commands[0], long)"
    assert run["state"]["message"].endswith(f"{refusal}; {hint} in the environment of the worker")
    assert hint in deployed.cloudops("result", run["id"])[1]


@pytest.mark.server
def test_a_settings_block_tells_how_long_a_deployed_command_may_take(kept):
    request = ExecutionRequest(
        command=ShellCommand(command="make"), working_dir=Path("/"), timeout_ms=900_000
    )
    plan = ExecutionPlan(commands=[request])
    warnings: list[str] = []

    async def deploy(maximum: int):
        await ExecutionConfigBlock(max_timeout_ms=maximum).asave("limits", overwrite=True)
        block = await ExecutionConfigBlock.aload("limits")
        await deploy_plan(
            plan, name="limited", work_pool=POOL, config=block.config(), warn=warnings.append
        )

    with temporary_settings({PREFECT_API_URL: kept.api}):
        with pytest.raises(TimeoutTooLargeError, match="900000ms > 700000ms"):
            anyio.run(deploy, 700_000)
        assert warnings == []
        anyio.run(deploy, 900_000)
    assert ["CLOUDOPS_MAX_TIMEOUT_MS=900000" in warning for warning in warnings] == [True]


TEMPLATES = [
    "docker ps --format '{{ .Names }}'",
    "{{ .ID }}",
    "at {{ HOME }}",
    "${{ outputs.a.b }}",
]


@pytest.mark.server
def test_prefect_deploy_erases_templates_that_cloudops_deploy_keeps(deployed, tmp_path):
    commands = [{"command": {"type": "exec", "program": "echo", "args": TEMPLATES}}]
    plan = {"commands": [command | {"working_dir": "/"} for command in commands]}
    by_prefect = {
        "name": "by-prefect",
        "entrypoint": "cloudops_prefect.flows.run_plan",
        "work_pool": {"name": POOL},
        "parameters": {"plan": plan},
    }
    (tmp_path / "prefect.yaml").write_text(
        json.dumps({"name": "shop", "pull": [], "deployments": [by_prefect]})
    )
    prefect(deployed.api, deployed.home, "--no-prompt", "deploy", "--all", cwd=tmp_path)
    (made,) = deployed.deployment("run-plan/by-prefect")["parameters"]["plan"]["commands"]
    assert made["command"]["args"] == [
        "docker ps --format ''",
        f"at {os.environ['HOME']}",
        "$",
    ]

    (tmp_path / "plan.json").write_text(json.dumps(plan))
    deploy = ["deploy", tmp_path / "plan.json", "--name", "by-cloudops", "--work-pool", POOL]
    assert deployed.cloudops(*deploy)[0] == 0
    (made,) = deployed.deployment("run-plan/by-cloudops")["parameters"]["plan"]["commands"]
    assert made["command"]["args"] == TEMPLATES
    run = deployed.ended(deployed.start("run-plan/by-cloudops", {}))
    result = deployed.engine(lambda engine: engine.get_result(run["id"]))
    assert result.stdout == f"{' '.join(TEMPLATES)}\n"


HOSTILE = """it's a "night" of $HOME and `id`"""


def paste(line: str, server: Prefect, **variables: str) -> str:
    """Runs a line that was printed in a shell; returns what it prints."""
    env = environment(server.api, server.home) | variables
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.server
def test_printed_commands_do_what_they_say_when_they_are_pasted(kept, plan_file, tmp_path):
    deploy = ["deploy", plan_file, "--name", HOSTILE, "--work-pool", HOSTILE]
    code, _, err = kept.cloudops(*deploy)
    assert code == 2
    create = err[err.index("`prefect work-pool") + 1 : err.rindex("` creates it")]
    paste(create, kept)
    code, out, _ = kept.cloudops(*deploy)
    assert code == 0
    printed = dict(re.findall(r"(?m)^([^:\n]+): +(.*)$", out))
    paste(printed["Run it now"], kept)
    made = kept.get(f"/deployments/name/run-plan/{quote(HOSTILE)}")
    wanted = {"deployments": {"id": {"any_": [made["id"]]}}}
    assert len(kept.post("/flow_runs/filter", wanted)) == 1

    # A worker would go on.
    (stub := tmp_path / "prefect").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    stub.chmod(0o755)
    words = paste(
        printed["Start a worker"], kept, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    )
    assert words.splitlines() == ["worker", "start", "--pool", HOSTILE]


@pytest.mark.server
def test_what_is_not_given_again_is_taken_back(deployed, plan_file):
    name = "run-plan/changing"
    command = ["deploy", plan_file, "--name", "changing", "--work-pool", POOL]
    options = ["--interval", "1h", "--paused", "--concurrency-limit", "1"]
    assert deployed.cloudops(*command, *options)[0] == 0
    made = deployed.deployment(name)
    assert (made["paused"], made["global_concurrency_limit"]["limit"]) == (True, 1)
    assert deployed.cloudops(*command)[0] == 0
    made = deployed.deployment(name)
    assert (made["paused"], made["global_concurrency_limit"]) == (False, None)
    assert made["schedules"] == []


@pytest.mark.server
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--cron", "every night"], "cron 'every night'"),
        (["--cron", "0 0 31 2 *"], "there is no such time"),
        (["--cron", "0 0 3 * * *"], "it has 6 fields, but cron has five"),
        (["--cron", "@reboot"], "Prefect knows no such name"),
        (["--rrule", "FREQ=DAILY;COUNT=1"], "there is no such time"),
        (["--cron", "0 3 * * *", "--timezone", ""], "there is no timezone"),
        (["--interval", "soon"], "interval 'soon'"),
        (["--interval", "0s"], "interval '0s'"),
        (["--rrule", "FREQ=NEVER"], "rrule 'FREQ=NEVER'"),
        (["--rrule", "nonsense"], "rrule 'nonsense'"),
        (["--cron", "0 3 * * *", "--timezone", "Mars/Base"], "Mars/Base"),
        (["--timezone", "Europe/Berlin"], "a timezone needs a schedule"),
        (["--cron", "0 3 * * *", "--interval", "1h"], "not cron and interval"),
        (["--concurrency-limit", "0"], "must be above 0"),
        (["--work-pool", "no-such-pool"], "`prefect work-pool create no-such-pool --type process`"),
        (["--name", "a/b"], "can't have '/'"),
        (["--name", "local"], "belongs to the runs of engines"),
    ],
)
def test_what_is_refused_changes_nothing(kept, plan_file, options, complaint):
    before = what_is_deployed(kept)
    given = {"--name": "kept", "--work-pool": POOL}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    code, out, err = kept.cloudops("deploy", plan_file, *(x for p in given.items() for x in p))
    assert (code, out) == (2, "")
    assert complaint in err
    assert len(err.splitlines()) == 1
    assert what_is_deployed(kept) == before


def what_is_deployed(server: Prefect) -> dict:
    """Every deployment; a plan that is deployed again has new ids."""
    deployments = server.post("/deployments/filter", {})
    return {one["id"]: (one["name"], one["schedules"], one["parameters"]) for one in deployments}


@pytest.mark.server
def test_a_plan_that_is_refused_is_not_deployed(prefect_api, tmp_path):
    plan = tmp_path / "plan.json"
    loop = {"type": "dependency_graph", "dependencies": {"0": [0]}}
    plan.write_text(json.dumps({"strategy": loop, "commands": [shell("true")]}))
    server = Prefect(prefect_api, tmp_path)
    assert server.cloudops("deploy", plan, "--name", "loop", "--work-pool", POOL)[0] == 2
    answer = ask("GET", f"{prefect_api}/deployments/name/run-plan/loop")
    assert answer.status_code == 404


@pytest.mark.server
def test_the_installed_flows_deploy_by_module(prefect_api, tmp_path):
    create_pool(prefect_api, "images")
    text = (
        (ROOT / "prefect-installed.yaml").read_text().replace(f"name: {POOL}\n", "name: images\n")
    )
    text = text.replace("- name: run-", "- name: installed-")
    (tmp_path / "prefect.yaml").write_text(text)
    prefect(prefect_api, tmp_path, "--no-prompt", "deploy", "--all")
    for kind in ("command", "plan"):
        made = Prefect(prefect_api, tmp_path).deployment(f"run-{kind}/installed-{kind}")
        assert made["entrypoint"] == f"cloudops_prefect.flows.run_{kind}"
        assert made["pull_steps"] == []


@pytest.mark.server
def test_a_stored_plan_is_triggered_waited_for_and_told(deployed):
    plan = ExecutionPlan(commands=[ExecutionRequest(command=ShellCommand(command="echo stored"))])

    async def trigger():
        await ExecutionPlanBlock(plan=plan).asave("stored", overwrite=True)
        block = await ExecutionPlanBlock.aload("stored")
        run = await block.trigger()
        await run.wait_for_completion()
        return await run.fetch_result()

    with temporary_settings({PREFECT_API_URL: deployed.api}):
        result = anyio.run(trigger)
    assert (result.plan_id, result.status) == (plan.id, ExecutionStatus.COMPLETED)
    assert result.results[0].stdout == "stored\n"


@pytest.mark.server
def test_a_secret_of_a_block_is_nowhere_in_clear(deployed):
    name = f"deploy-{uuid4()}"
    block = CommandEnvironment(secrets={"DEPLOY_TOKEN": SecretStr(SECRET)})
    with temporary_settings({PREFECT_API_URL: deployed.api}):
        anyio.run(block.asave, name)
    request = shell('echo "$DEPLOY_TOKEN"; echo "$DEPLOY_TOKEN" >&2; exit 3')
    request["env_from"] = [f"command-environment/{name}"]
    run_id = deployed.start("run-command/run-command", {"request": request})
    deployed.ended(run_id)
    result = deployed.engine(lambda engine: engine.get_result(run_id))
    assert (result.stdout, result.stderr) == ("********\n", "********\n")
    kinds = ("flow_runs", "task_runs", "logs", "artifacts", "block_documents", "deployments")
    for kind in kinds:
        answer = ask("POST", f"{deployed.api}/{kind}/filter", {})
        assert SECRET not in answer.raise_for_status().text, kind
    database = Path(deployed.get("/admin/settings")["home"], "prefect.db")
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT id FROM flow_run WHERE id = ?", [run_id]).fetchone()
    for path in database.parent.glob("prefect.db*"):
        assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("flow", [run_command, run_plan])
def test_parameters_make_a_form(flow):
    """The UI makes a form of `anyOf` only, and sends what a schema calls required."""
    schema = parameter_schema(flow).model_dump()
    assert "oneOf" not in json.dumps(schema)
    (parameter,) = schema["properties"].values()
    assert parameter["description"]
    command = schema["definitions"]["ExecutionRequest"]["properties"]["command"]
    assert len(command["anyOf"]) == 4
    assert schema["definitions"]["ShellCommand"]["required"] == ["type", "command"]
    assert schema["definitions"]["ExecutionRequest"]["required"] == ["command"]


def test_parameters_are_written_without_what_is_empty():
    request = ExecutionRequest(command=ShellCommand(command="echo hi"), env={"EMPTY": ""})
    assert parameters_of(request) == {
        "request": {
            "id": str(request.id),
            "command": {"type": "shell", "command": "echo hi", "shell": "bash"},
            "env": {"EMPTY": ""},
        }
    }
