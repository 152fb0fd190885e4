"""Nothing is left of what is stopped, whoever stops it, on the local route."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest
from engines import PROGRAMS, shell
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.states import Cancelling
from running import processes, soon
from stopped import ARGV, count_ready, plan_of
from workers import prefect

from cloudops_prefect import ExecutionConfig, ExecutionEngine, ExecutionPlan, ExecutionStatus

pytestmark = [pytest.mark.anyio, pytest.mark.server]
PARTLY = "partly done"


@pytest.fixture
def mark():
    return uuid4().hex


@pytest.fixture
def marks():
    return {kind: uuid4().hex for kind in ARGV}


@pytest.fixture
def config(tmp_path) -> ExecutionConfig:
    return ExecutionConfig(
        log_dir=tmp_path / "logs", grace_period_ms=500, max_concurrent_executions=100
    )


async def ready(config: ExecutionConfig, count: int) -> None:
    await soon(lambda: count_ready(config.resolved_log_dir) == count, 30)


def signs_of_life(config: ExecutionConfig) -> list[Path]:
    return list(config.resolved_log_dir.glob("*.alive"))


async def names_of_states(flow_run_id) -> set[str]:
    """The names of the states of a run and of all of its task runs."""
    async with get_client() as client:
        flow_run = await client.read_flow_run(flow_run_id)
        wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
        task_runs = await client.read_task_runs(task_run_filter=wanted)
    return {str(run.state_name) for run in [flow_run, *task_runs]}


@pytest.fixture
def plans(marks):
    return {kind: plan_of(kind, mark) for kind, mark in marks.items()}


async def start_all(engine: ExecutionEngine, plans: dict[str, ExecutionPlan]) -> dict[str, UUID]:
    """Starts the plan of each kind, and waits until every command is ready."""
    ids = {kind: await engine.execute_plan(plan) for kind, plan in plans.items()}
    await ready(engine.config, sum(len(plan.commands) for plan in plans.values()))
    return ids


async def check_stopped(engine, kind: str, execution_id: UUID, mark: str, status) -> None:
    """Once the status says so, nothing is left; and what was printed is kept."""
    result = await engine.wait(execution_id)
    assert processes(mark) == [], kind
    assert {one.status for one in result.results} == {status}, kind
    assert all(one.stdout for one in result.results), kind


async def test_a_timeout_leaves_nothing(api, config, marks):
    plans = {kind: plan_of(kind, mark, timeout_ms=15_000) for kind, mark in marks.items()}
    # It fills the disk, so that it has less time, and begins once all else has.
    del plans["floods"]
    flood = plan_of("floods", marks["floods"], timeout_ms=3000)
    async with ExecutionEngine(config) as engine:
        ids = await start_all(engine, plans)
        ids["floods"] = await engine.execute_plan(flood)
        async with anyio.create_task_group() as tasks:
            for kind, execution_id in ids.items():
                args = kind, execution_id, marks[kind], ExecutionStatus.TIMEOUT
                tasks.start_soon(check_stopped, engine, *args)


async def test_cancel_leaves_nothing(api, config, marks, plans):
    async with ExecutionEngine(config) as engine:
        ids = await start_all(engine, plans)
        for kind, execution_id in ids.items():
            await engine.cancel(execution_id)
            if kind == "ignores sigterm":
                await engine.cancel(execution_id)
            await check_stopped(engine, kind, execution_id, marks[kind], ExecutionStatus.CANCELLED)
            assert await engine.get_status(execution_id) is ExecutionStatus.CANCELLED, kind
    for kind, execution_id in ids.items():
        assert await names_of_states(execution_id) == {"Cancelled"}, kind


async def test_prefects_command_cancels_what_runs_here_and_the_ui_what_waits(
    api, config, mark, tmp_path
):
    waiting = shell(f"touch {tmp_path}/ran")
    one_at_once = config.model_copy(update={"max_concurrent_executions": 1})
    async with ExecutionEngine(one_at_once) as engine, get_client() as client:
        running_id = await engine.execute_plan(plan_of("sleeps", mark))
        await ready(config, 1)
        waiting_id = await engine.execute(waiting)
        await client.set_flow_run_state(waiting_id, Cancelling(), force=True)
        assert (await engine.wait(waiting_id)).status is ExecutionStatus.CANCELLED
        cancel = partial(prefect, api, tmp_path, "flow-run", "cancel", str(running_id))
        await anyio.to_thread.run_sync(cancel)
        await check_stopped(engine, "sleeps", running_id, mark, ExecutionStatus.CANCELLED)
    assert not (tmp_path / "ran").exists()
    assert await names_of_states(running_id) == {"Cancelled"}


async def test_cancel_in_the_ui_leaves_nothing(api, config, marks, plans):
    async with ExecutionEngine(config) as engine, get_client() as client:
        ids = await start_all(engine, plans)
        for kind, execution_id in ids.items():
            await client.set_flow_run_state(execution_id, Cancelling(), force=True)
            await check_stopped(engine, kind, execution_id, marks[kind], ExecutionStatus.CANCELLED)
    for kind, execution_id in ids.items():
        assert await names_of_states(execution_id) == {"Cancelled"}, kind


def partly_done(mark: str) -> ExecutionPlan:
    commands = [shell("echo ready"), *plan_of("sleeps", mark).commands, shell("echo never")]
    return ExecutionPlan(commands=commands)


def expected(kind: str, stopped: ExecutionStatus) -> list[ExecutionStatus]:
    """How the commands of a plan end that is stopped once all commands are ready that can be."""
    if kind == PARTLY:
        return [ExecutionStatus.COMPLETED, stopped, ExecutionStatus.CANCELLED]
    return [stopped] * len(plan_of(kind, "").commands)


class Process:
    """A process that runs a plan of each kind, with two engines."""

    def __init__(self, api: str, config: ExecutionConfig) -> None:
        self.marks = {kind: uuid4().hex for kind in (PARTLY, *ARGV)}
        plans = [
            partly_done(mark) if kind == PARTLY else plan_of(kind, mark)
            for kind, mark in self.marks.items()
        ]
        env = os.environ | {
            "PREFECT_API_URL": api,
            "CLOUDOPS_LOG_DIR": str(config.log_dir),
            "CLOUDOPS_GRACE_PERIOD_MS": str(config.grace_period_ms),
            "CLOUDOPS_MAX_CONCURRENT_EXECUTIONS": str(config.max_concurrent_executions),
        }
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(PROGRAMS / "runs_executions.py"),
                *(plan.model_dump_json() for plan in plans),
            ],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.count = sum(len(plan.commands) for plan in plans) - 1

    def ids(self) -> dict[str, str]:
        assert self.process.stdout is not None
        return dict(zip(self.marks, self.process.stdout.readline().split(), strict=True))

    def left(self) -> dict[str, list]:
        return {kind: left for kind, mark in self.marks.items() if (left := processes(mark))}


@pytest.fixture
def process(api, config):
    started = Process(api, config)
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_cancels_everything_and_leaves_nothing(api, config, process, signum):
    ids = process.ids()
    await ready(config, process.count)
    process.process.send_signal(signum)
    assert process.process.wait(30) == -signum
    assert process.left() == {}
    async with ExecutionEngine(config) as engine:
        for kind, execution_id in ids.items():
            result = await engine.get_plan_result(execution_id)
            told = [one.status for one in result.results]
            assert told == expected(kind, ExecutionStatus.CANCELLED), kind
            names = {"Cancelled", "Completed"} if kind == PARTLY else {"Cancelled"}
            assert await names_of_states(execution_id) == names, kind


RUNS_A_COMPILED_PLAN = """
import asyncio, sys
from cloudops_prefect import ExecutionCancelledError, ExecutionPlan, compile_plan
plan = ExecutionPlan.model_validate_json(sys.argv[1])
try:
    asyncio.run(compile_plan(plan)())
except ExecutionCancelledError:
    print("cancelled", flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_cancels_a_compiled_plan(api, config, mark, signum):
    argv = [sys.executable, "-c", RUNS_A_COMPILED_PLAN, plan_of("sleeps", mark).model_dump_json()]
    env = os.environ | {"PREFECT_API_URL": api, "CLOUDOPS_LOG_DIR": str(config.log_dir)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as run:  # noqa: ASYNC220
        await ready(config, 1)
        run.send_signal(signum)
        printed, _ = await anyio.to_thread.run_sync(partial(run.communicate, timeout=30))
    assert (printed, run.returncode, processes(mark)) == ("cancelled\n", 0, [])


async def test_sigkill_leaves_nothing_and_the_next_engine_tells_the_truth(api, config, process):
    ids = process.ids()
    await ready(config, process.count)
    process.process.kill()
    await soon(lambda: process.left() == {}, 30)
    async with ExecutionEngine(config) as engine:
        for kind, execution_id in ids.items():
            assert await engine.get_status(execution_id) is ExecutionStatus.FAILED, kind
            result = await engine.get_plan_result(execution_id)
            told = [one.status for one in result.results]
            assert told == expected(kind, ExecutionStatus.FAILED), kind
            died = result.results[1 if kind == PARTLY else 0]
            assert "died; last heard of at 20" in (died.error or ""), kind
            path = config.log_path(died.execution_id)
            assert path.open("rb").read(6) == b"ready\n", kind
    assert signs_of_life(config) == []


async def test_what_completed_just_before_a_sigkill_is_kept_and_does_not_run_again(
    api, config, tmp_path
):
    """The second command kills its engine before the next batch of results is sent."""
    ran = tmp_path / "ran"
    kills_once = f"test -e {tmp_path}/again || {{ touch {tmp_path}/again; kill -9 $PPID; }}"
    commands = [
        shell(f"echo out; echo err >&2; echo ran >> {ran}"),
        shell(f"{kills_once}; echo killed"),
    ]
    env = os.environ | {"PREFECT_API_URL": api, "CLOUDOPS_LOG_DIR": str(config.log_dir)}
    plan = ExecutionPlan(commands=commands)
    argv = [sys.executable, PROGRAMS / "runs_executions.py", plan.model_dump_json()]
    run = partial(subprocess.run, argv, env=env, capture_output=True, text=True, timeout=60)
    killed = await anyio.to_thread.run_sync(run)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    async with ExecutionEngine(config) as engine:
        results = (await engine.get_plan_result(plan.id)).results
        assert [one.status for one in results] == [
            ExecutionStatus.COMPLETED,
            ExecutionStatus.FAILED,
        ]
        assert (results[0].stdout, results[0].stderr) == ("out\n", "err\n")
        again = await engine.wait(await engine.resume(plan.id))
    assert again.status is ExecutionStatus.COMPLETED
    assert ran.read_text() == "ran\n"


ENDS_WITHOUT_CLOSING = """
import asyncio, os, signal, sys
from cloudops_prefect import ExecutionConfig, ExecutionEngine, ExecutionPlan
async def main():
    engine = ExecutionEngine(ExecutionConfig(grace_period_ms=500))
    execution_id = await engine.execute_plan(ExecutionPlan.model_validate_json(sys.argv[1]))
    async for event in engine.stream(execution_id):
        if event.event_type == "stdout":
            print(execution_id, flush=True)
            return
"""
FORGETS_ITS_LOOP = """
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
# Its end is none of what runs in its parent.
if os.fork() == 0:
    sys.exit()
os.wait()
loop.close()
"""
IS_INTERRUPTED_AT_ITS_END = """
async def once_more():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
async def impatient():
    task = asyncio.create_task(once_more())
    await main()
try:
    asyncio.run(impatient())
except KeyboardInterrupt:
    pass
"""


def printed(api: str, config: ExecutionConfig, code: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        env=os.environ | {"PREFECT_API_URL": api, "CLOUDOPS_LOG_DIR": str(config.log_dir)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "ending",
    ["asyncio.run(main())", FORGETS_ITS_LOOP, IS_INTERRUPTED_AT_ITS_END],
    ids=["cancelled", "forgotten", "interrupted"],
)
async def test_the_end_of_the_loop_is_a_cancellation(api, config, mark, ending):
    plan = plan_of("ignores sigterm", mark)
    code = ENDS_WITHOUT_CLOSING + ending
    execution_id = printed(api, config, code, plan.model_dump_json())
    assert processes(mark) == []
    async with ExecutionEngine(config) as engine:
        assert await engine.get_status(execution_id) is ExecutionStatus.CANCELLED
    assert await names_of_states(execution_id) == {"Cancelled"}


IS_CANCELLED_WITH_ALL_TASKS = """
import asyncio, sys
from pathlib import Path
from cloudops_prefect import ExecutionConfig, ExecutionPlan, compile_plan
plan, directory = ExecutionPlan.model_validate_json(sys.argv[1]), Path(sys.argv[2])
async def until(sign):
    while not (directory / sign).exists():
        await asyncio.sleep(0.01)
async def main():
    run = asyncio.create_task(compile_plan(plan, ExecutionConfig(grace_period_ms=60_000))())
    await until("ready")
    run.cancel()
    await until("stopping")
    # As asyncio.run does after a second Ctrl-C.
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    (directory / "enough").touch()
    await asyncio.wait([run])
    print(run.cancelled())
asyncio.run(main())
"""


async def test_a_compiled_plan_is_cancelled_also_if_each_task_is(api, config, tmp_path):
    command = (
        "trap 'touch stopping' TERM; echo started; touch ready;"
        " until test -e enough; do sleep 0.05; done"
    )
    first = shell(command, working_dir=tmp_path)
    plan = ExecutionPlan(commands=[first, shell("echo never")])
    code = IS_CANCELLED_WITH_ALL_TASKS
    assert printed(api, config, code, plan.model_dump_json(), str(tmp_path)) == "True"
    async with ExecutionEngine(config) as engine:
        result = await engine.get_plan_result(plan.id)
        assert (await engine.read_logs(first.id)).startswith("started\n")
    assert [one.status for one in result.results] == [ExecutionStatus.CANCELLED] * 2
    assert result.status is ExecutionStatus.CANCELLED
    assert await names_of_states(result.execution_id) == {"Cancelled"}
