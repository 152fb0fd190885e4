"""The commands of plans as task runs of Prefect's own task engine."""

import logging
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4, uuid5

import anyio
import pytest
from engines import PROGRAMS, shell, until
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prefect import flow, get_client, tags
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, Log, TaskRun
from prefect.context import TaskRunContext
from prefect.events.actions import PauseDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY, temporary_settings
from prefect.states import Cancelling
from servers import send_what_is_queued

from cloudops_prefect import (
    DependencyGraphStrategy,
    ExecutionEngine,
    ExecutionPlan,
    ParallelStrategy,
    SerialStrategy,
    compile_plan,
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


@pytest.fixture
async def limited_tag(client):
    """A tag with a limit of one, and somebody who holds that slot for longer than any test."""
    tag = f"database-{uuid4()}"
    await client.create_concurrency_limit(tag=tag, concurrency_limit=1)
    held = await client.increment_concurrency_slots_with_lease(
        [f"tag:{tag}"], 1, "concurrency", 3600
    )
    yield tag
    await client.release_concurrency_slots_with_lease(UUID(held.json()["lease_id"]))
    limit = await client.read_global_concurrency_limit_by_name(f"tag:{tag}")
    await client.delete_concurrency_limit_by_tag(tag)
    assert limit.active_slots == 0


async def test_a_run_that_waits_for_the_limit_of_a_tag_is_cancelled_and_its_process_ends(
    client, limited_tag, api, tmp_path
):
    env = os.environ | {"PREFECT_API_URL": api, "CLOUDOPS_LOG_DIR": str(tmp_path)}
    argv = [sys.executable, str(PROGRAMS / "waits_for_a_tag.py"), limited_tag]
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[limited_tag]))
    found: list[FlowRun] = []

    async def is_running() -> bool:
        found[:] = await client.read_flow_runs(flow_run_filter=wanted)
        return [one.state_name for one in found] == ["Running"]

    process = await anyio.open_process(argv, env=env)
    try:
        await until(is_running, 60)
        with anyio.fail_after(60):
            assert b"waits for a slot" in await process.stdout.receive()
        await client.set_flow_run_state(found[0].id, Cancelling(), force=True)
        with anyio.fail_after(60):
            printed = b"".join([part async for part in process.stdout])
            await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.aclose()
    assert printed.decode() == "not run: the plan was cancelled\n"
    assert (await client.read_flow_run(found[0].id)).state_name == "Cancelled"
    (run,) = (await task_runs_of(client, found[0].id)).values()
    assert (run.state_name, run.start_time) == ("Cancelled", None)


async def called_by_a_flow(config, tag: str, *commands: str) -> UUID:
    @flow
    async def release():
        run = run_shell.with_options(tags=[tag])
        for command in commands:
            await run(shell(command, name=command), return_state=True)
        return flow_run.id

    return await release()


async def run_by_a_plan(config, tag: str, *commands: str) -> UUID:
    requests = [shell(command, name=command) for command in commands]
    plan = ExecutionPlan(commands=requests, strategy=SerialStrategy(stop_on_error=False))
    with tags(tag):
        state = await compile_plan(plan, config)(return_state=True)
    return state.state_details.flow_run_id


async def test_a_task_in_a_users_flow_and_a_command_of_a_plan_are_alike_at_the_api(client, config):
    tag = f"nightly-{uuid4()}"
    await client.create_concurrency_limit(tag=tag, concurrency_limit=2)
    seen = []
    for start in (called_by_a_flow, run_by_a_plan):
        flow_run_id = await start(config, tag, "true", "exit 3")
        await until(partial(all_ended, client, flow_run_id, 2), 30)
        runs = await task_runs_of(client, flow_run_id)
        seen.append(
            sorted(
                (run.name, run.state_name, tuple(run.tags), run.run_count) for run in runs.values()
            )
        )
        for run in runs.values():
            await until_states_are(client, run.id, "Pending", "Running", run.state_name)
        limit = await client.read_global_concurrency_limit_by_name(f"tag:{tag}")
        assert limit.active_slots == 0
    await client.delete_concurrency_limit_by_tag(tag)
    assert seen[0] == seen[1]
    assert [one[:3] for one in seen[0]] == [
        ("exit 3", "Failed", (tag,)),
        ("true", "Completed", (tag,)),
    ]


async def all_ended(client, flow_run_id, count: int) -> bool:
    runs = (await task_runs_of(client, flow_run_id)).values()
    return len(runs) == count and all(run.state.is_final() for run in runs)


@pytest.fixture
def spans(api):
    """The spans of this process, with Prefect's telemetry turned on."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with temporary_settings({PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY: True}):
        yield exporter


async def test_each_command_that_runs_has_a_span_within_its_flow_runs(config, spans):
    execution_id = await run_plan_to_its_end(config, "true", "exit 3", "true")
    by_run = {one.attributes["prefect.run.id"]: one for one in spans.get_finished_spans()}
    whole, *own = (
        by_run[str(one)] for one in (execution_id, *(uuid5(execution_id, f"1/{i}") for i in (0, 1)))
    )
    assert [(one.name, one.status.status_code) for one in own] == [
        ("c0", StatusCode.OK),
        ("c1", StatusCode.ERROR),
    ]
    assert {one.parent.span_id for one in own} == {whole.context.span_id}
    assert [event.name for event in own[0].events] == ["Running", "Completed"]


async def test_an_automation_on_the_start_of_a_task_run_fires_also_for_a_short_command(
    client, config
):
    flow_id = await client.create_flow_from_name("watched")
    deployment_id = await client.create_deployment(flow_id, name=str(uuid4()))
    name = f"deploy {uuid4()}"
    automation_id = await client.create_automation(
        AutomationCore(
            name=name,
            trigger=EventTrigger(
                expect={"prefect.task-run.Running"},
                match=ResourceSpecification({"prefect.resource.name": name}),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[PauseDeployment(source="selected", deployment_id=deployment_id)],
        )
    )

    async def is_paused() -> bool:
        return (await client.read_deployment(deployment_id)).paused

    # The server's triggers learn of an automation a moment after it was created.
    async with ExecutionEngine(config) as engine:
        with anyio.fail_after(60):
            while not await is_paused():
                plan = ExecutionPlan(commands=[shell("true", name=name)])
                await engine.wait(await engine.execute_plan(plan))
    await client.delete_automation(automation_id)
