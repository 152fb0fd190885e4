"""The engine on the local route, against a real Prefect server."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOW_DEFAULT_RETRIES,
    PREFECT_LOCAL_STORAGE_PATH,
    temporary_settings,
)
from prefect.states import AwaitingRetry, Cancelling

from cloudops_prefect import (
    CommandFailedError,
    DependencyGraphStrategy,
    ExecutionConfig,
    ExecutionEngine,
    ExecutionNotCompletedError,
    ExecutionNotFoundError,
    ExecutionNotRunningError,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionStatus,
    ScriptCommand,
    ScriptNotFoundError,
    SerialStrategy,
    ShellCommand,
    compile_plan,
    run_command,
    run_plan,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]


@pytest.fixture
def api(prefect_api):
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api


@pytest.fixture
def config(tmp_path) -> ExecutionConfig:
    return ExecutionConfig(log_dir=tmp_path / "logs", grace_period_ms=1000)


def shell(command: str, **fields) -> ExecutionRequest:
    return ExecutionRequest(command=ShellCommand(command=command), **fields)


class Collector:
    def __init__(self) -> None:
        self.events = []

    async def on_event(self, event) -> None:
        self.events.append(event)


async def test_a_command_completes_and_another_engine_reads_its_result(api, config):
    async with ExecutionEngine(config) as engine:
        request = shell("echo out; echo err >&2")
        execution_id = await engine.execute(request)
        await engine.wait(execution_id)
    async with ExecutionEngine(ExecutionConfig(log_dir=config.log_dir.parent / "other")) as other:
        result = await other.get_result(request.id)
        assert await other.get_status(str(execution_id)) is ExecutionStatus.COMPLETED
        assert "out\n" in await other.read_logs(execution_id)
        assert execution_id in [one.id for one in await other.list_executions()]
    assert (result.id, result.execution_id) == (request.id, execution_id)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n", "err\n")


async def test_events_of_a_failing_command_arrive_in_order(api, config):
    collector = Collector()
    async with ExecutionEngine(config) as engine:
        watched = engine.with_event_handler(collector)
        execution_id = await watched.execute(shell("echo one; echo two; exit 3"))
        result = await watched.wait(execution_id)
    assert (result.status, result.exit_code) == (ExecutionStatus.FAILED, 3)
    kinds = [event.event_type for event in collector.events]
    assert kinds == ["started", "stdout", "stdout", "failed"]
    assert [event.line for event in collector.events[1:3]] == ["one", "two"]


async def test_the_task_inputs_of_a_finished_graph_are_the_edges_of_the_plan(api, config):
    edges = {1: [0], 2: [0], 3: [1, 2]}
    plan = ExecutionPlan(
        strategy=DependencyGraphStrategy(dependencies=edges),
        commands=[shell(f"echo {index}", name=f"c{index}") for index in range(4)],
    )
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        result = await engine.wait(execution_id)
    assert result.status is ExecutionStatus.COMPLETED
    async with get_client() as client:
        wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[execution_id]))
        task_runs = await client.read_task_runs(task_run_filter=wanted)
    assert all(run.state.is_final() for run in task_runs)
    names = {run.id: run.name for run in task_runs}
    found = {
        (names[upstream.id], run.name)
        for run in task_runs
        for inputs in run.task_inputs.values()
        for upstream in inputs
    }
    assert found == {(f"c{a}", f"c{b}") for b, waits_for in edges.items() for a in waits_for}


async def test_two_equal_commands_of_a_plan_are_two_commands(api, config, tmp_path):
    counter = tmp_path / "counter"
    plan = ExecutionPlan(commands=[shell(f"echo x >> {counter}")] * 2)
    async with ExecutionEngine(config) as engine:
        await engine.wait(await engine.execute_plan(plan))
    assert counter.read_text() == "x\nx\n"


async def test_each_result_has_the_name_of_its_command(api, config):
    secret = {"API_TOKEN": "hunter2hunter2"}
    plan = ExecutionPlan(
        commands=[
            shell("echo built", name="build"),
            shell("echo hunter2hunter2; exit 1", env=secret),
            shell("echo told", name="tell hunter2hunter2", env=secret),
        ]
    )
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        results = (await engine.wait(execution_id)).results
        first = await engine.get_result(results[0].execution_id)
        single = await engine.wait(await engine.execute(shell("true")))
    assert [one.name for one in results] == ["build", "echo ********; exit 1", "tell ********"]
    assert [one.status for one in results] == ["completed", "failed", "cancelled"]
    assert (first.name, single.name) == ("build", "true")
    with pytest.raises(CommandFailedError) as failure:
        await compile_plan(plan, config)()
    assert [one.name for one in failure.value.result.results] == [one.name for one in results]


async def test_ids_are_plain_ones_and_may_be_pasted(api, config):
    plan = ExecutionPlan(commands=[shell("echo done")])
    async with ExecutionEngine(config) as engine:
        of_command = await engine.execute(shell("echo done"))
        of_plan = await engine.execute_plan(plan)
        for execution_id in (of_command, of_plan):
            # No class of ours, of which json, pickle or a database would have to know.
            assert type(execution_id) is UUID
            result = await engine.wait(str(execution_id))
            assert await engine.wait(execution_id) == result
            assert result.execution_id == execution_id


async def test_resume_runs_what_failed_and_not_what_completed(api, config, tmp_path):
    counter, gate = tmp_path / "counter", tmp_path / "gate"
    plan = ExecutionPlan(commands=[shell(f"echo x >> {counter}"), shell(f"test -e {gate}")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        first = await engine.wait(execution_id)
        gate.touch()
        assert await engine.resume(execution_id) == execution_id
        second = await engine.wait(execution_id)
    assert (first.status, second.status) == (ExecutionStatus.FAILED, ExecutionStatus.COMPLETED)
    assert counter.read_text() == "x\n"


async def test_resume_takes_over_what_was_scheduled_again_for_nobody(api, config, tmp_path):
    gate = tmp_path / "gate"
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(shell(f"test -e {gate}"))
        await engine.wait(execution_id)
        async with get_client() as client:
            later = AwaitingRetry(scheduled_time=datetime.now(UTC) + timedelta(hours=1))
            await client.set_flow_run_state(execution_id, later, force=True)
            with pytest.raises(ExecutionNotCompletedError, match="is pending"):
                await engine.resume(execution_id)
            await client.set_flow_run_state(execution_id, AwaitingRetry(), force=True)
        with pytest.raises(TimeoutError, match="no worker takes; to run it here, resume it"):
            await engine.wait(execution_id, timeout=0.1)
        gate.touch()
        await engine.resume(execution_id)
        result = await engine.wait(execution_id)
    assert result.status is ExecutionStatus.COMPLETED


@pytest.mark.parametrize("command", ["echo done", "exit 3"])
async def test_what_had_ended_before_it_was_asked_to_cancel_stays_as_it_was(api, config, command):
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(shell(command))
        before = await engine.wait(execution_id)
        async with get_client() as client:
            await client.set_flow_run_state(execution_id, Cancelling(), force=True)
            assert await engine.get_status(execution_id) is before.status
            assert (
                await client.read_flow_run(execution_id)
            ).state_type.value == before.status.upper()
            await client.set_flow_run_state(execution_id, Cancelling(), force=True)
        assert await engine.wait(execution_id) == before
        with pytest.raises(ExecutionNotRunningError):
            await engine.cancel(execution_id)


async def test_serial_stops_on_error_and_says_why(api, config):
    plan = ExecutionPlan(commands=[shell("exit 7", name="bad"), shell("echo never")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        result = await engine.wait(execution_id)
        whole = await engine.get_result(execution_id)
    assert [one.status for one in result.results] == ["failed", "cancelled"]
    assert "bad" in (result.results[1].error or "")
    assert whole.exit_code == 7


async def test_serial_without_stop_runs_all(api, config):
    plan = ExecutionPlan(
        strategy=SerialStrategy(stop_on_error=False), commands=[shell("false"), shell("echo on")]
    )
    async with ExecutionEngine(config) as engine:
        result = await engine.wait(await engine.execute_plan(plan))
    assert [one.status for one in result.results] == ["failed", "completed"]


async def test_a_timeout_keeps_what_was_printed(api, config):
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(shell("echo before; sleep 60", timeout_ms=3000))
        result = await engine.wait(execution_id)
    assert result.status is ExecutionStatus.TIMEOUT
    assert (result.stdout, result.error) == ("before\n", "Execution timeout after 3000ms")
    async with get_client() as client:
        assert (await client.read_flow_run(execution_id)).state_name == "TimedOut"


async def test_cancel_stops_the_command_and_keeps_what_was_printed(api, config):
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(shell("echo ready; sleep 60"))
        async for event in engine.stream(execution_id):
            if event.event_type == "stdout":
                await engine.cancel(execution_id)
        result = await engine.wait(execution_id)
        assert (result.status, result.stdout) == (ExecutionStatus.CANCELLED, "ready\n")
        with pytest.raises(ExecutionNotRunningError):
            await engine.cancel(execution_id)


async def test_bad_requests_are_refused_before_anything_starts(api, config, tmp_path):
    missing = ExecutionRequest(command=ScriptCommand(path=tmp_path / "missing.sh"))
    async with ExecutionEngine(config) as engine:
        before = len(await engine.list_executions())
        with pytest.raises(ScriptNotFoundError):
            await engine.execute(missing)
        with pytest.raises(ExecutionNotFoundError):
            await engine.get_status(uuid4())
        assert len(await engine.list_executions()) == before


async def test_an_idempotency_key_gives_the_first_execution(api, config):
    request, key = shell("true"), str(uuid4())
    async with ExecutionEngine(config) as engine:
        first = await engine.execute(request, idempotency_key=key)
        assert await engine.execute(request, idempotency_key=key) == first
        assert await engine.execute(request) != first


async def test_a_run_that_a_flow_starts_is_no_part_of_that_flow(api, config):
    @flow
    async def caller():
        async with ExecutionEngine(config) as engine:
            execution_id = await engine.execute(shell("echo inside"))
            return execution_id, await engine.wait(execution_id)

    execution_id, result = await caller()
    assert result.stdout == "inside\n"
    async with get_client() as client:
        assert (await client.read_flow_run(execution_id)).parent_task_run_id is None


async def test_a_compiled_plan_is_an_ordinary_flow(api, config):
    result = await compile_plan(ExecutionPlan(commands=[shell("echo hi")]), config)()
    assert isinstance(result.execution_id, UUID)
    assert result.results[0].stdout == "hi\n"


@pytest.mark.parametrize("kind", ["compiled plan", "plan", "command"])
async def test_a_flow_with_retries_runs_again_what_has_failed(api, tmp_path, kind):
    first, second = tmp_path / "first", tmp_path / "second"
    again = shell(f"echo x >> {second}; test $(wc -l < {second}) -gt 1")
    plan = ExecutionPlan(commands=[shell(f"echo x >> {first}"), again])
    call = {
        "compiled plan": compile_plan(plan).with_options(retries=1),
        "plan": lambda: run_plan.with_options(retries=1)(plan),
        "command": lambda: run_command.with_options(retries=1)(again),
    }[kind]
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "storage"}):
        result = await call()
    assert result.status is ExecutionStatus.COMPLETED
    assert second.read_text().count("x") == 2
    assert kind == "command" or first.read_text().count("x") == 1


async def test_a_flow_that_fails_at_its_last_retry_too_says_how(api, tmp_path):
    tries = tmp_path / "tries"
    request = shell(f"echo x >> {tries}; exit $(wc -l < {tries})")
    with (
        temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "storage"}),
        pytest.raises(CommandFailedError) as failure,
    ):
        await run_command.with_options(retries=1)(request)
    assert failure.value.exit_code == failure.value.result.exit_code == 2


async def test_an_execution_ends_once_where_prefect_is_set_to_retry_flows(api, config):
    with temporary_settings({PREFECT_FLOW_DEFAULT_RETRIES: 2}):
        async with ExecutionEngine(config) as engine:
            result = await engine.wait(await engine.execute(shell("exit 3")), timeout=30)
            assert await engine.get_status(result.execution_id) is ExecutionStatus.FAILED
    assert (result.status, result.exit_code) == (ExecutionStatus.FAILED, 3)
