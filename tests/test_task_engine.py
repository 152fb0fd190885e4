"""The commands of plans as task runs of Prefect's own task engine."""

import logging
import os
import subprocess
import sys
from collections import Counter
from uuid import UUID, uuid5

import anyio
import pytest
from engines import PROGRAMS, shell, until
from prefect import get_client
from prefect.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import Log, TaskRun
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from servers import send_what_is_queued

from cloudops_prefect import (
    DependencyGraphStrategy,
    ExecutionEngine,
    ExecutionPlan,
    ParallelStrategy,
    SerialStrategy,
    run_shell,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]

EDGES = {
    "serial": (SerialStrategy(), {1: {0}, 2: {1}, 3: {2}}),
    "graph": (DependencyGraphStrategy(dependencies={2: [0, 1], 3: [0]}), {2: {0, 1}, 3: {0}}),
    "parallel": (ParallelStrategy(), {}),
}


@pytest.fixture
async def client(api):
    async with get_client() as client:
        yield client


async def run_plan_to_its_end(config, *commands: str, strategy=None) -> UUID:
    plan = ExecutionPlan(
        commands=[shell(command, name=f"c{index}") for index, command in enumerate(commands)],
        strategy=strategy or SerialStrategy(),
    )
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        await engine.wait(execution_id, timeout=60)
    return execution_id


async def task_runs_of(client, flow_run_id) -> dict[UUID, TaskRun]:
    wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
    return {run.id: run for run in await client.read_task_runs(task_run_filter=wanted)}


async def until_states_are(client, task_run_id: UUID, *names: str) -> None:
    """Wait until the API has recorded these states of a task run, and no others."""
    recorded: list[str] = []

    async def are_recorded() -> bool:
        # In the order of their times: a late one stands behind the state that it came before.
        states = await client.read_task_run_states(task_run_id)
        recorded[:] = [state.name for state in sorted(states, key=lambda one: one.timestamp)]
        return recorded == [*names]

    try:
        await until(are_recorded, 30)
    except TimeoutError:
        assert recorded == [*names]


async def logs_of(client, flow_run_id) -> list[Log]:
    await anyio.to_thread.run_sync(send_what_is_queued)
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    return await client.read_logs(wanted)


@pytest.mark.parametrize("kind", EDGES)
async def test_the_api_has_each_commands_states_id_name_and_edges(client, config, kind):
    strategy, edges = EDGES[kind]
    execution_id = await run_plan_to_its_end(config, *["true"] * 4, strategy=strategy)
    ids = [uuid5(execution_id, f"1/{index}") for index in range(4)]
    runs = await task_runs_of(client, execution_id)
    assert {runs[one].name: one for one in runs} == {f"c{i}": one for i, one in enumerate(ids)}
    for index, own in enumerate(ids):
        await until_states_are(client, own, "Pending", "Running", "Completed")
        assert runs[own].start_time <= runs[own].end_time
        upstream = [one.id for inputs in runs[own].task_inputs.values() for one in inputs]
        assert Counter(upstream) == Counter(ids[one] for one in edges.get(index, ()))


@pytest.mark.parametrize(
    "strategy", [SerialStrategy(), DependencyGraphStrategy(dependencies={1: [0], 2: [1]})]
)
async def test_commands_that_never_ran_are_cancelled_and_have_no_start(client, config, strategy):
    execution_id = await run_plan_to_its_end(config, "exit 3", "true", "true", strategy=strategy)
    ids = [uuid5(execution_id, f"1/{index}") for index in range(3)]
    runs = await task_runs_of(client, execution_id)
    await until_states_are(client, ids[0], "Pending", "Running", "Failed")
    for index, own in enumerate(ids[1:]):
        await until_states_are(client, own, "Pending", "Cancelled")
        assert runs[own].name == f"c{index + 1}"
        assert runs[own].start_time is None
        assert runs[own].end_time is not None
        assert [one.id for one in runs[own].task_inputs["request"]] == [ids[index]]


async def test_a_run_has_one_error_record_of_a_failed_command_and_none_of_others(client, config):
    execution_id = await run_plan_to_its_end(config, "true", "exit 3", "true")
    failed = uuid5(execution_id, "1/1")
    logs = await logs_of(client, execution_id)
    errors = [one for one in logs if one.level >= logging.ERROR and one.task_run_id]
    assert [(one.task_run_id, one.message) for one in errors] == [
        (failed, "Command failed with exit code 3")
    ]
    of_tasks = [
        one.message for one in logs if one.task_run_id and "Finished in state" in one.message
    ]
    assert of_tasks == []


@pytest.mark.parametrize("where", ["environment", "settings"])
def test_prefects_default_of_retries_runs_no_command_again(prefect_api, tmp_path, where):
    env = os.environ | {"PREFECT_API_URL": prefect_api, "CLOUDOPS_LOG_DIR": str(tmp_path / "logs")}
    if where == "environment":
        env["PREFECT_TASKS_DEFAULT_RETRIES"] = "3"
    argv = [sys.executable, str(PROGRAMS / "fails_each_way.py"), str(tmp_path), where]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1"] * 6


@pytest.fixture
def seen(monkeypatch):
    """What a hook of the task sees of each run of `run_shell`."""
    runs = []

    def note(task, task_run, state):
        context = TaskRunContext.get()
        get_run_logger().info("a hook runs")
        runs.append((task.name, task_run.id, task_run.name, state.name, context.task_run.id))

    monkeypatch.setattr(run_shell, "on_running_hooks", [note])
    monkeypatch.setattr(run_shell, "on_completion_hooks", [note])
    return runs


async def test_a_command_of_a_plan_has_the_hooks_and_the_context_of_its_task(client, config, seen):
    plan = ExecutionPlan(commands=[shell("true", name="one")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        [result] = (await engine.wait(execution_id)).results
    own = result.execution_id
    assert seen == [
        ("run_shell", own, "one", "Running", own),
        ("run_shell", own, "one", "Completed", own),
    ]
    of_hooks = [one for one in await logs_of(client, execution_id) if one.message == "a hook runs"]
    assert [one.task_run_id for one in of_hooks] == [own, own]
