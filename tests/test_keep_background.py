"""Processes that commands leave in the background on purpose end with their run, on every route."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from engines import PROGRAMS, exec_, gated, shell
from in_process import Cloudops
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, LogFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from running import MARK, processes, soon
from workers import create_pool, deploy, deployments, process_worker

from cloudops_prefect import (
    ExecutionEngine,
    ExecutionPlan,
    ExecutionStatus,
    SerialStrategy,
    compile_plan,
    run_shell,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]
# Until it is seen as what it is, and no longer as the shell that has forked it.
SLEEPER = (
    "sleep 60 >/dev/null 2>&1 </dev/null & until grep -q sleep /proc/$!/comm; do sleep 0.01; done"
)
POOL = "keep-background"


@pytest.fixture
def mark():
    mark = uuid4().hex
    yield mark
    left = processes(mark)
    for process in left:
        process.kill()
    assert left == []


def daemon(mark: str, then: str = "echo started", **fields):
    """Leaves a process in the background that has the mark, and says that it is started."""
    return shell(f"{SLEEPER}; {then}", env={MARK: mark}, keep_background=True, **fields)


def counts(mark: str):
    """Says how many processes have the mark, its own not counted."""
    code = "import sys; from running import processes; print(len(processes(sys.argv[1])))"
    parts = "'+'.join(sys.argv[1:])"
    half = len(mark) // 2
    code = code.replace("sys.argv[1]", f"({parts}).replace('+', '')")
    env = {"PYTHONPATH": str(Path(__file__).parent) + os.pathsep + str(Path(__file__).parents[1])}
    return exec_(sys.executable, "-c", code, mark[:half], mark[half:], env=env)


@pytest.fixture
async def engine(api, config):
    async with ExecutionEngine(config) as engine:
        yield engine


async def test_later_commands_have_it_and_the_end_of_the_plan_ends_it(engine, mark):
    plan = ExecutionPlan(commands=[daemon(mark), counts(mark)])
    result = await engine.wait(await engine.execute_plan(plan))
    assert processes(mark) == []
    assert [one.status for one in result.results] == ["completed"] * 2
    assert result.results[1].stdout == "1\n"
    assert [one.leftovers for one in result.results] == [[], []]
    log = result.results[0].log_path.read_text()
    assert "[cloudops] runs in the background until the run ends: sleep 60 (pid " in log


async def test_a_plan_that_fails_ends_it_too(engine, mark):
    plan = ExecutionPlan(commands=[daemon(mark, "exit 3"), shell("true")])
    result = await engine.wait(await engine.execute_plan(plan))
    assert processes(mark) == []
    assert [one.status for one in result.results] == ["failed", "cancelled"]


async def test_a_cancelled_plan_is_told_cancelled_once_it_is_gone(engine, mark, tmp_path):
    ignoring = f"{sys.executable} {PROGRAMS / 'ignores_sigterm.py'}"
    start = f"exec 3< <({ignoring}); read -r -u 3 line; echo $line"
    stubborn = shell(start, env={MARK: mark}, keep_background=True)
    plan = ExecutionPlan(commands=[stubborn, gated(tmp_path / "never")])
    execution_id = await engine.execute_plan(plan)
    async for event in engine.stream(execution_id):
        if getattr(event, "line", None) == "ready" and event.request_id == plan.commands[1].id:
            assert len(processes(mark)) == 1
            await engine.cancel(execution_id)
    result = await engine.wait(execution_id)
    assert processes(mark) == []
    assert [one.status for one in result.results] == ["completed", "cancelled"]
    assert result.status is ExecutionStatus.CANCELLED


async def test_a_single_commands_run_ends_with_it(engine, mark):
    result = await engine.wait(await engine.execute(daemon(mark)))
    assert processes(mark) == []
    assert (result.status, result.leftovers) == ("completed", [])


async def test_a_compiled_plan_called_as_a_subflow_ends_it(api, mark, tmp_path):
    plan = ExecutionPlan(commands=[daemon(mark), counts(mark)])

    @flow
    async def release():
        result = await compile_plan(plan)()
        return result, len(processes(mark))

    result, left = await release()
    assert (result.results[1].stdout, left) == ("1\n", 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_of_a_users_flow_leaves_it_until_that_flow_ends(api, mark, fails):
    @flow(name=f"uses a daemon {fails}")
    async def release():
        await run_shell(daemon(mark))
        found.append(len(processes(mark)))
        if fails:
            raise ValueError("the flow's own")

    found: list[int] = []
    for _ in range(2):
        with suppress(ValueError):
            await release()
        assert processes(mark) == []
    assert found == [1, 1]
    assert len(release.on_failure_hooks) == 1


def test_a_synchronous_flow_of_a_user_does_so_too(api, mark):
    @flow
    def release():
        run_shell.submit(daemon(mark)).result()
        return len(processes(mark))

    assert release() == 1
    assert processes(mark) == []


async def test_a_task_that_no_flow_has_called_ends_it_at_once(api, mark):
    result = await run_shell(daemon(mark))
    assert (result.status, processes(mark)) == ("completed", [])


@pytest.fixture
def process(api, config, mark, tmp_path):
    """A process of its own that runs a plan, whose second command waits for ever."""
    plan = ExecutionPlan(
        commands=[daemon(mark), gated(tmp_path / "never")], strategy=SerialStrategy()
    )
    env = os.environ | {"PREFECT_API_URL": api, "CLOUDOPS_LOG_DIR": str(config.log_dir)}
    argv = [sys.executable, str(PROGRAMS / "runs_executions.py"), plan.model_dump_json()]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as started:
        yield started
        started.kill()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
async def test_the_end_of_the_process_that_runs_it_ends_it(process, config, mark, signum):
    def waits() -> bool:
        logs = [path.read_bytes() for path in config.resolved_log_dir.glob("*.log")]
        return any(log.startswith(b"ready") for log in logs)

    await soon(waits, 60)
    assert len(processes(mark)) == 1
    process.send_signal(signum)
    await soon(lambda: processes(mark) == [], 30)
    assert await anyio.to_thread.run_sync(process.wait, 30) == -signum


async def test_a_worker_keeps_it_for_as_long(prefect_api, api, config, mark, tmp_path):
    home = tmp_path / "worker"
    home.mkdir()
    create_pool(prefect_api, POOL)
    await deploy(POOL)
    with process_worker(prefect_api, home, POOL):
        async with ExecutionEngine(config, deployments=deployments(POOL)) as engine:
            plan = ExecutionPlan(commands=[daemon(mark), counts(mark)])
            result = await engine.wait(await engine.execute_plan(plan), timeout=90)
            assert processes(mark) == []
            assert result.results[1].stdout == "1\n"

            waiting = ExecutionPlan(commands=[daemon(mark), gated(tmp_path / "never")])
            execution_id = await engine.execute_plan(waiting)
            async for event in engine.stream(execution_id):
                if getattr(event, "line", None) == "ready":
                    assert len(processes(mark)) == 1
                    await engine.cancel(execution_id)
            assert (await engine.wait(execution_id, timeout=60)).status == "cancelled"
            assert processes(mark) == []


# What is left behind without being wanted


async def test_leftovers_are_in_the_result_its_event_the_table_and_the_log(engine, mark):
    request = shell(f"{SLEEPER}; echo started", env={MARK: mark}, name="starts it")
    plan = ExecutionPlan(commands=[request, shell("true")])
    execution_id = await engine.execute_plan(plan)
    events = [event async for event in engine.stream(execution_id)]
    result = await engine.wait(execution_id)
    ((leftover,), others) = (one.leftovers for one in result.results)
    assert leftover.startswith("sleep 60 (pid ")
    assert others == []
    assert (await engine.get_result(execution_id)).leftovers == [leftover]
    completed = [event for event in events if event.event_type == "completed"]
    assert completed[0].result.leftovers == [leftover]
    async with get_client() as client:
        of_run = {"any_": [execution_id]}
        artifacts = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=of_run, type={"any_": ["table"]})
        )
        (table,) = artifacts
        logs = await client.read_logs(LogFilter(flow_run_id=of_run))
    assert f'"stopped in the background": "{leftover}"' in table.data
    assert any(
        f"stopped a process left in the background: {leftover}" in one.message for one in logs
    )


def test_leftovers_are_printed_where_a_result_is(prefect_api, mark, tmp_path):
    cloudops = Cloudops(prefect_api, tmp_path / "logs")
    env = f"{MARK}={mark}"
    said = "stopped a process left in the background: sleep 60 (pid "
    done = cloudops("shell", "--env", env, f"{SLEEPER}; echo started")
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert said in done.stderr
    found = cloudops.json("shell", "--env", env, f"{SLEEPER}; echo started")
    assert found["leftovers"][0].startswith("sleep 60 (pid ")
    assert "stopped:   sleep 60 (pid " in cloudops("result", found["execution_id"]).stdout
    plan = tmp_path / "plan.yaml"
    web = {"name": "web", "run": f"{SLEEPER}; exit 3", "env": {MARK: mark}}
    plan.write_text(json.dumps({"commands": [web]}))
    done = cloudops("run", plan)
    assert f"web: {said}" in done.stdout
    assert done.returncode == 1


def test_a_plan_file_says_what_stays_in_the_background(prefect_api, mark, tmp_path):
    cloudops = Cloudops(prefect_api, tmp_path / "logs")
    plan = tmp_path / "plan.yaml"
    starts = {"run": f"{SLEEPER}; echo $!", "keep_background": True, "env": {MARK: mark}}
    plan.write_text(json.dumps({"commands": [starts, {"run": "ps"}]}))
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        found = cloudops.json("run", plan)
    pid, seen = (one["stdout"] for one in found["results"])
    assert pid.strip() in seen.split()
    assert processes(mark) == []
    plan.write_text("commands: [{run: 'true', keep_background: perhaps}]")
    refused = cloudops("validate", plan)
    assert "commands[0].keep_background" in refused.stderr
