"""The engine over deployments, with a real worker that shares no files with it."""

import shutil
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio
import psutil
import pytest
from engines import exec_, gated, shell, until
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Suspended
from running import MARK, processes, soon
from workers import create_pool, deploy, deployments, process_worker

from cloudops_prefect import (
    DependencyGraphStrategy,
    Deployments,
    ExecutionEngine,
    ExecutionError,
    ExecutionNotRunningError,
    ExecutionPlan,
    ExecutionStatus,
    SerialStrategy,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]
POOL = "deployed-route"
EMPTY_POOL = "nobody-works-here"
PWD_IS_HERE = "import os; print(os.path.samefile(os.environ['PWD'], '.'), os.environ['OLDPWD'])"


@dataclass(frozen=True)
class Worker:
    home: Path

    def forget(self) -> None:
        """Leaves the worker as little of earlier runs as a new machine has."""
        for name in ("prefect", "logs"):
            shutil.rmtree(self.home / name, ignore_errors=True)


@pytest.fixture(scope="module")
def worker(prefect_api, tmp_path_factory):
    home = tmp_path_factory.mktemp("deployed-worker")
    create_pool(prefect_api, POOL)
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        anyio.run(deploy, POOL)
    with process_worker(prefect_api, home, POOL):
        yield Worker(home)


@pytest.fixture
async def engine(worker, api, config):
    async with ExecutionEngine(config, deployments=deployments(POOL)) as engine:
        yield engine


@pytest.fixture
async def slow_engine(worker, api, config):
    """An engine whose runs are started by Prefect's own command."""
    await deploy(POOL, "slow", quickly=False)
    async with ExecutionEngine(config, deployments=deployments("slow")) as engine:
        yield engine


class Collector:
    def __init__(self) -> None:
        self.events = []

    async def on_event(self, event) -> None:
        self.events.append(event)


def told(events) -> dict:
    """What is the same on every route: each command's events, its streams apart, by its request."""
    found: dict = {}
    for event in events:
        if event.event_type == "progress":
            found.setdefault("progress", []).append((event.completed, event.total))
            continue
        kind = event.event_type if event.event_type in {"stdout", "stderr"} else "life"
        what = getattr(event, "line", event.event_type)
        found.setdefault((event.request_id, kind), []).append(what)
    return found


async def test_a_plan_tells_the_same_events_and_results_as_on_the_local_route(engine, config):
    plan = ExecutionPlan(
        description="Both streams",
        strategy=SerialStrategy(stop_on_error=False),
        commands=[
            shell("for i in $(seq 300); do echo out $i; echo err $i >&2; done; printf rest"),
            shell("echo one; sleep 1; echo two; exit 3"),
            shell("no-such-program"),
            exec_("printenv", "PWD", working_dir=Path("/usr")),
            exec_(sys.executable, "-c", PWD_IS_HERE, env={"OLDPWD": "/"}),
        ],
    )
    here, there = Collector(), Collector()
    async with ExecutionEngine(config) as local:
        first = await local.with_event_handler(here).execute_plan(plan)
        expected = await local.wait(first)
    watched = engine.with_event_handler(there)
    second = await watched.execute_plan(plan)
    streamed = [event async for event in engine.stream(second)]
    result = await engine.wait(second, timeout=60)
    await watched.aclose()
    assert told(streamed) == told(there.events) == told(here.events)
    assert there.events[-1].completed == 5
    assert [one.stdout for one in result.results[3:]] == ["/usr\n", "True /\n"]
    assert {event.execution_id for event in streamed if event.event_type == "progress"} == {second}
    for one, other in zip(result.results, expected.results, strict=True):
        assert (one.id, one.status, one.exit_code, one.stdout, one.stderr, one.error) == (
            other.id, other.status, other.exit_code, other.stdout, other.stderr, other.error,
        )  # fmt: skip
        assert not config.log_path(one.execution_id).exists()
    printed = "".join(f"{one.stdout}\n{one.stderr}\n" for one in result.results)
    assert sorted((await engine.read_logs(second)).split()) == sorted(printed.split())
    (summary,) = [one for one in await engine.list_executions() if one.id == second]
    assert (summary.name, summary.status, summary.kind) == ("Both streams", "failed", "plan")


async def test_a_retry_runs_what_has_not_completed_on_a_new_machine(engine, worker, tmp_path):
    counter, gate, places = (tmp_path / name for name in ("counter", "gate", "places"))
    plan = ExecutionPlan(
        strategy=DependencyGraphStrategy(dependencies={2: [1]}),
        commands=[
            shell(f"echo first; echo first >> {counter}"),
            shell(f"pwd >> {places}; echo second; echo second >> {counter}; test -e {gate}"),
            shell(f"echo third; echo third >> {counter}"),
        ],
    )
    execution_id = await engine.execute_plan(plan)
    before = await engine.wait(execution_id, timeout=60)
    assert [one.status for one in before.results] == ["completed", "failed", "cancelled"]

    worker.forget()
    async with get_client() as client:
        await client.set_flow_run_state(execution_id, AwaitingRetry(), force=True)
    again = await engine.wait(execution_id, timeout=60)
    assert [one.status for one in again.results] == ["completed", "failed", "cancelled"]

    worker.forget()
    gate.touch()
    assert await engine.resume(plan.id) == execution_id
    events = [event async for event in engine.stream(execution_id)]
    after = await engine.wait(execution_id, timeout=60)
    assert [one.status for one in after.results] == ["completed"] * 3
    assert [one.stdout for one in after.results] == ["first\n", "second\n", "third\n"]
    assert after.results[0] == before.results[0]
    assert Counter(counter.read_text().split()) == {"first": 1, "second": 3, "third": 1}
    # Each attempt has a new temporary directory.
    assert len({*places.read_text().split(), str(Path.cwd())}) == 4
    lines = [event.line for event in events if event.event_type == "stdout"]
    assert sorted(lines) == ["second", "third"]
    assert await engine.read_logs(execution_id) == "first\nsecond\nthird\n"
    for attempt in (before, again):
        earlier = attempt.results[1].execution_id
        assert earlier != after.results[1].execution_id
        assert await engine.read_logs(earlier) == "second\n"
        assert (await engine.get_result(earlier)).status is ExecutionStatus.FAILED


async def test_a_command_is_told_while_it_runs(engine, config, tmp_path):
    gate, key = tmp_path / "gate", str(uuid4())
    request = gated(gate, "echo done", metadata={"tags": {"team": "ops"}})
    execution_id = await engine.execute(request, idempotency_key=key)
    assert await engine.execute(request, idempotency_key=key) == execution_id
    assert await engine.get_status(execution_id) is ExecutionStatus.PENDING
    kinds, lines = [], []
    async for event in engine.stream(request.id):
        kinds.append(event.event_type)
        lines.append(getattr(event, "line", None))
        if lines[-1] == "ready":
            assert await engine.get_status(request.id) is ExecutionStatus.RUNNING
            assert await engine.read_logs(request.id) == "ready\n"
            gate.touch()
    assert (kinds, lines[1:3]) == (["started", "stdout", "stdout", "completed"], ["ready", "done"])
    assert (await engine.get_result(execution_id)).stdout == "ready\ndone\n"
    async with get_client() as client:
        run = await client.read_flow_run(execution_id)
    assert {"team:ops", f"cloudops-id:{request.id}"} <= set(run.tags)
    assert run.work_pool_name == POOL


async def test_a_plan_larger_than_a_parameter_runs(engine, tmp_path):
    counter, padding = tmp_path / "counter", "x" * 20_000
    commands = [shell(f"echo {n} | tee -a {counter}", env={"PADDING": padding}) for n in range(100)]
    plan = ExecutionPlan(description="A large one", commands=commands)
    assert len(plan.model_dump_json()) > 2_000_000
    execution_id = await engine.execute_plan(plan)
    result = await engine.wait(execution_id, timeout=80)
    assert [one.stdout for one in result.results] == [f"{n}\n" for n in range(100)]
    assert [one.id for one in result.results] == [one.id for one in commands]
    assert counter.read_text() == await engine.read_logs(execution_id)


async def test_cancel_leaves_nothing_and_keeps_what_was_printed(engine):
    mark = uuid4().hex
    plan = ExecutionPlan(
        strategy=DependencyGraphStrategy(dependencies={2: [1]}),
        commands=[
            shell("echo unwanted; sleep 60", env={MARK: mark}),
            shell("echo ready; sleep 60 & sleep 60", env={MARK: mark}),
            shell("echo never"),
        ],
    )
    execution_id = await engine.execute_plan(plan)
    async for event in engine.stream(execution_id):
        if getattr(event, "line", None) == "unwanted":
            await engine.cancel(event.execution_id)
        if event.event_type == "cancelled" and event.request_id == plan.commands[0].id:
            assert await engine.get_status(execution_id) is ExecutionStatus.RUNNING
            assert processes(mark) != []
            await engine.cancel(execution_id)
    result = await engine.wait(execution_id, timeout=30)
    assert processes(mark) == []
    assert [one.status for one in result.results] == ["cancelled"] * 3
    assert [one.stdout for one in result.results] == ["unwanted\n", "ready\n", ""]
    assert result.status is await engine.get_status(execution_id) is ExecutionStatus.CANCELLED
    async with get_client() as client:
        states = await client.read_flow_run_states(execution_id)
    assert not {state.name for state in states} & {"Crashed", "Failed", "Completed"}
    with pytest.raises(ExecutionNotRunningError):
        await engine.cancel(execution_id)


async def test_what_is_cancelled_while_a_worker_starts_it_never_runs(engine, tmp_path):
    execution_id = await engine.execute(shell(f"touch {tmp_path}/ran; sleep 3"))
    async with get_client() as client:

        async def is_there() -> bool:
            run = await client.read_flow_run(execution_id)
            return run.state.is_pending() and run.infrastructure_pid

        await until(is_there)
        await engine.cancel(execution_id)
        await engine.wait(execution_id, timeout=10)
        run = await client.read_flow_run(execution_id)
        pid = int(run.infrastructure_pid.rpartition(":")[2])
        await soon(lambda: not psutil.pid_exists(pid), 30)
        assert await engine.get_status(execution_id) is ExecutionStatus.CANCELLED
    assert (await engine.get_result(execution_id)).status is ExecutionStatus.CANCELLED
    assert not (tmp_path / "ran").exists()


async def test_single_commands_are_cancelled_before_their_turn_and_before_a_worker_comes(
    engine, tmp_path
):
    counter = tmp_path / "counter"
    plan = ExecutionPlan(
        strategy=SerialStrategy(stop_on_error=False),
        commands=[
            shell(f"echo unwanted >> {counter}"),
            shell("echo ready; sleep 60"),
            shell(f"echo unwanted >> {counter}"),
            shell(f"echo wanted >> {counter}"),
        ],
    )
    first, runs, later, _ = [request.id for request in plan.commands]
    execution_id = await engine.execute_plan(plan)
    for _ in range(2):
        await engine.cancel(first)
    assert await engine.get_status(first) is ExecutionStatus.PENDING
    async for event in engine.stream(execution_id):
        if getattr(event, "line", None) == "ready":
            await engine.cancel(later)
            assert await engine.get_status(later) is ExecutionStatus.PENDING
            # Who hears of this has heard of that.
            await engine.cancel(runs)
    result = await engine.wait(execution_id, timeout=30)
    assert [one.status for one in result.results] == [*["cancelled"] * 3, "completed"]
    assert {result.results[index].error for index in (0, 2)} == {"not run: it was cancelled"}
    assert counter.read_text() == "wanted\n"
    with pytest.raises(ExecutionNotRunningError):
        await engine.cancel(first)


async def test_sigkill_of_the_flow_is_told_as_the_death_of_its_process(slow_engine):
    mark = uuid4().hex
    execution_id = await slow_engine.execute(shell("echo ready; sleep 60", env={MARK: mark}))
    events = []
    async for event in slow_engine.stream(execution_id):
        events.append(event)
        if event.event_type == "stdout":
            async with get_client() as client:
                pid = (await client.read_flow_run(execution_id)).infrastructure_pid
            psutil.Process(int(pid.rpartition(":")[2])).kill()
    result = await slow_engine.wait(execution_id, timeout=30)
    assert result.status is ExecutionStatus.FAILED
    assert "the process that ran it died" in result.error
    assert "last heard of at 20" in result.error
    assert [event.event_type for event in events] == ["started", "stdout", "failed"]
    # The worker tells of the death, and the guard stops the command, neither waiting for the other.
    await soon(lambda: processes(mark) == [])
    assert await slow_engine.read_logs(execution_id) == "ready\n"


@pytest.fixture
async def unworked(api, config):
    create_pool(api, EMPTY_POOL)
    await deploy(EMPTY_POOL)
    async with ExecutionEngine(config, deployments=deployments(EMPTY_POOL)) as engine:
        yield engine


async def test_a_run_that_no_worker_takes_is_waited_for_and_cancelled(unworked):
    plan = ExecutionPlan(commands=[shell("echo never")])
    for execution_id in (
        await unworked.execute(shell("echo never")),
        await unworked.execute_plan(plan),
    ):
        with pytest.raises(TimeoutError, match=f"a worker of the work pool '{EMPTY_POOL}'"):
            await unworked.wait(execution_id, timeout=0.5)
        assert await unworked.get_status(execution_id) is ExecutionStatus.PENDING
        await unworked.cancel(execution_id)
        assert await unworked.get_status(execution_id) is ExecutionStatus.CANCELLED
        result = await unworked.wait(execution_id, timeout=60)
        assert result.status is ExecutionStatus.CANCELLED
        events = [event.event_type async for event in unworked.stream(execution_id)]
        assert events[-1] in {"cancelled", "progress"}
    assert (await unworked.get_plan_result(plan.id)).results[0].error.startswith("not run: ")


async def test_an_unknown_deployment_is_refused_by_its_name(api, config):
    wrong = Deployments(command="run-command/no-such", plan="run-plan/no-such")
    async with ExecutionEngine(config, deployments=wrong) as engine:
        before = len(await engine.list_executions())
        with pytest.raises(ExecutionError, match="run-command/no-such"):
            await engine.execute(shell("true"))
        with pytest.raises(ExecutionError, match="run-plan/no-such"):
            await engine.execute_plan(ExecutionPlan(commands=[shell("true")]))
        assert len(await engine.list_executions()) == before


def runs_here(execution_id) -> bool:
    """Whether a process that the worker has started for a run is still there."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(execution_id):
                return True
    return False


async def test_a_suspended_run_ends_its_commands_and_goes_on_when_it_is_resumed(engine, tmp_path):
    record = tmp_path / "record"
    # Prefect looks for a suspension every ten seconds at the latest.
    commands = [shell(f"echo {index} >> {record}; sleep 0.25") for index in range(80)]
    execution_id = await engine.execute_plan(ExecutionPlan(commands=commands))
    await soon(record.exists, 60)
    async with get_client() as client:
        await client.set_flow_run_state(execution_id, Suspended(timeout_seconds=600), force=True)
        await soon(lambda: not runs_here(execution_id), 60)
        flow_run = await client.read_flow_run(execution_id)
        assert (flow_run.state_type, flow_run.state_name) == (StateType.PAUSED, "Suspended")
        before = len(record.read_text().split())
        assert 0 < before < len(commands)
        await client.resume_flow_run(execution_id)
        with anyio.fail_after(120):
            result = await engine.wait(execution_id)
        names = {
            state.name
            for one in result.results
            for state in await client.read_task_run_states(one.execution_id)
        }
    assert result.status is ExecutionStatus.COMPLETED
    assert record.read_text().split() == [str(index) for index in range(len(commands))]
    assert "Crashed" not in names
