"""Flows of `compile_plan` as somebody calls them: their runs are a plan's like any other."""

import asyncio
import os
import sys
from collections import OrderedDict
from contextlib import suppress
from uuid import UUID, uuid4

import anyio
import pytest
from engines import shell
from in_process import Cloudops
from prefect import flow, get_client, tags
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow, run_flow_async
from prefect.runtime import flow_run
from prefect.settings import PREFECT_DEFAULT_RESULT_STORAGE_BLOCK, temporary_settings
from prefect.states import AwaitingRetry, Cancelled
from running import soon
from stopped import count_ready

from cloudops_prefect import (
    CommandFailedError,
    ExecutionEngine,
    ExecutionError,
    ExecutionMetadata,
    ExecutionPlan,
    ExecutionStatus,
    TimeoutTooLargeError,
    compile_plan,
    plan_store,
    run_command,
    run_plan,
)
from cloudops_prefect.compilation import run_with_services
from cloudops_prefect.flows import compile_command
from cloudops_prefect.plan_run import PLAN_CANCELLED

pytestmark = [pytest.mark.anyio, pytest.mark.server]


def plan_of(*commands: str, padding: str = "") -> ExecutionPlan:
    batch = uuid4().hex
    env = {f"PADDING_{number}": padding for number in range(20)} if padding else {}
    return ExecutionPlan(
        description=f"Release {batch}",
        metadata=ExecutionMetadata(tags={"batch": batch}),
        commands=[shell(command, name=f"c{n}", env=env) for n, command in enumerate(commands)],
    )


async def runs_of(item: ExecutionPlan) -> list[FlowRun]:
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"batch:{item.metadata.tags['batch']}"]))
    async with get_client() as client:
        return await client.read_flow_runs(flow_run_filter=wanted)


@pytest.mark.parametrize("padding", ["", "x" * 30_000], ids=["small", "large"])
async def test_its_run_is_listed_found_and_read_as_a_plans(api, config, padding):
    plan = plan_of("echo one", "echo two", padding=padding)
    with tags("mine"):
        told = await compile_plan(plan, config)()
    (run,) = await runs_of(plan)
    assert run.name == plan.description
    assert {"mine", f"cloudops-id:{plan.id}"} <= set(run.tags)
    async with ExecutionEngine(config) as engine:
        (listed,) = [one for one in await engine.list_executions() if one.id == run.id]
        result = await engine.get_plan_result(plan.id)
        second = await engine.get_result(plan.commands[1].id)
        logs = await engine.read_logs(run.id)
    assert (listed.kind, listed.name) == ("plan", plan.description)
    assert result.execution_id == told.execution_id == run.id
    assert [one.id for one in result.results] == [one.id for one in plan.commands]
    assert (second.stdout, second.status) == ("two\n", ExecutionStatus.COMPLETED)
    assert "one\n" in logs


async def test_resuming_it_runs_only_what_has_not_completed(api, config, tmp_path):
    counter, gate = tmp_path / "counter", tmp_path / "gate"
    plan = plan_of(f"echo x >> {counter}", f"test -e {gate}")
    with pytest.raises(ExecutionError):
        await compile_plan(plan, config)()
    (run,) = await runs_of(plan)
    gate.touch()
    async with ExecutionEngine(config) as engine:
        assert await engine.resume(run.id) == run.id
        result = await engine.wait(run.id, timeout=30)
    assert result.status is ExecutionStatus.COMPLETED
    assert [one.id for one in result.results] == [one.id for one in plan.commands]
    assert counter.read_text() == "x\n"


async def until_ready(config, then) -> None:
    await soon(lambda: count_ready(config.resolved_log_dir) == 1, 30)
    then()


async def cancelled_task(call, config) -> None:
    task = asyncio.create_task(call)
    await until_ready(config, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_scope(call, config) -> None:
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(until_ready, config, scope.cancel)
            await call
    assert scope.cancelled_caught


@pytest.mark.parametrize("interrupted", [cancelled_task, cancelled_scope])
@pytest.mark.parametrize("kind", ["compiled", "run_plan"])
async def test_who_interrupts_it_has_cancelled_it(api, config, interrupted, kind, monkeypatch):
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(config.log_dir))
    plan = plan_of("echo ready; sleep 60", "echo never")
    call = run_plan(plan) if kind == "run_plan" else compile_plan(plan, config)()
    await interrupted(call, config)
    (run,) = await runs_of(plan)
    assert run.state_name == "Cancelled"
    async with ExecutionEngine(config) as engine:
        first, second = (await engine.get_plan_result(run.id)).results
    assert (first.status, first.stdout) == (ExecutionStatus.CANCELLED, "ready\n")
    assert (second.status, second.error) == (ExecutionStatus.CANCELLED, PLAN_CANCELLED)


async def test_what_is_interrupted_as_it_begins_is_cancelled(api):
    runs = []

    async def run(services):
        await services.control(runs[0]).until_cancelled()
        return Cancelled()

    @flow
    async def interrupted():
        runs.append(UUID(flow_run.id))
        asyncio.current_task().cancel()
        return await run_with_services(run, shell("true"))

    async with asyncio.timeout(60):
        await asyncio.gather(asyncio.create_task(interrupted()), return_exceptions=True)
    async with get_client() as client:
        assert (await client.read_flow_run(runs[0])).state_name == "Cancelled"


async def test_a_command_that_is_interrupted_is_cancelled(api, config, monkeypatch):
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(config.log_dir))
    request = shell("echo ready; sleep 60")
    await cancelled_task(run_command(request), config)
    async with ExecutionEngine(config) as engine:
        result = await engine.get_result(request.id)
    assert (result.status, result.stdout) == (ExecutionStatus.CANCELLED, "ready\n")


async def test_prefects_timeout_of_the_flow_stays_one(api, config):
    plan = plan_of("sleep 60")
    with pytest.raises(TimeoutError):
        await compile_plan(plan, config).with_options(timeout_seconds=1)()
    (run,) = await runs_of(plan)
    assert run.state_name == "TimedOut"
    async with get_client() as client:
        states = await client.read_flow_run_states(run.id)
    assert [state.name for state in states if state.is_final()] == ["TimedOut"]


async def test_it_asks_for_no_default_storage_of_results(api, config):
    plan = plan_of("echo one")
    missing = {PREFECT_DEFAULT_RESULT_STORAGE_BLOCK: "local-file-system/missing"}
    with temporary_settings(missing):
        result = await compile_plan(plan, config)()
    assert result.status is ExecutionStatus.COMPLETED


IMPORTED_BY_A_RUN = """
import asyncio, sys
from cloudops_prefect import ExecutionPlan, ExecutionRequest, ShellCommand, compile_plan
plan = ExecutionPlan(commands=[ExecutionRequest(command=ShellCommand(command="true"))])
assert asyncio.run(compile_plan(plan)()).status == "completed"
print([name for name in sys.modules if name.startswith("pydantic.v1")])
"""


async def test_its_run_does_not_import_the_old_pydantic(api, config):
    done = await anyio.run_process(
        [sys.executable, "-c", IMPORTED_BY_A_RUN],
        env=os.environ | {"PREFECT_API_URL": api, "CLOUDOPS_LOG_DIR": str(config.log_dir)},
        stderr=None,
    )
    assert done.stdout.decode().strip() == "[]"


async def test_the_command_line_shows_it_as_a_plan(api, config, tmp_path):
    plan = plan_of("echo one", "exit 3")
    with suppress(ExecutionError):
        await compile_plan(plan, config)()
    (run,) = await runs_of(plan)
    cloudops = Cloudops(api, tmp_path / "logs")
    shown = await anyio.to_thread.run_sync(cloudops.json, "result", run.id)
    assert [one["exit_code"] for one in shown["results"]] == [0, 3]
    drawn = await anyio.to_thread.run_sync(cloudops, "graph", run.id)
    assert "c0" in drawn.stdout


async def test_options_and_a_callers_flow_change_nothing_of_that(api, config):
    plan = plan_of("echo one")
    compiled = compile_plan(plan, config).with_options(description="mine", timeout_seconds=60)

    @flow
    async def caller():
        return (await compiled()).execution_id

    execution_id = await caller()
    assert isinstance(execution_id, UUID)
    async with ExecutionEngine(config) as engine:
        result = await engine.get_plan_result(execution_id)
    assert (result.plan_id, compiled.description) == (plan.id, "mine")
    assert [run.id for run in await runs_of(plan)] == [execution_id]


async def test_the_run_of_a_compiled_command_knows_its_command(api, config):
    request = shell("echo one; exit 3", name="one")
    with pytest.raises(CommandFailedError):
        await compile_command(request, config)()
    async with ExecutionEngine(config) as engine:
        result = await engine.get_result(request.id)
        (listed,) = [one for one in await engine.list_executions() if one.id == result.execution_id]
    assert (result.id, result.exit_code, result.stdout) == (request.id, 3, "one\n")
    assert (listed.kind, listed.name) == ("command", "one")


@pytest.mark.parametrize("compiled", [compile_plan, compile_command])
async def test_what_is_refused_raises_what_it_is_refused_for(api, config, compiled):
    request = shell("true", timeout_ms=700_000)
    item = request if compiled is compile_command else ExecutionPlan(commands=[request])
    with pytest.raises(TimeoutTooLargeError, match="700000ms > 600000ms"):
        await compiled(item, config)()


async def test_a_plan_that_is_refused_where_it_runs_says_why_of_each_command(api, config):
    plan = ExecutionPlan(commands=[shell("true"), shell("true", timeout_ms=700_000)])
    with pytest.raises(TimeoutTooLargeError):
        await compile_plan(plan, config)()
    async with ExecutionEngine(config) as engine:
        result = await engine.get_plan_result(plan.id)
    assert [one.status for one in result.results] == [ExecutionStatus.CANCELLED] * 2
    for one in result.results:
        assert one.error.startswith("not run: Timeout exceeds maximum allowed: 700000ms > 600000ms")


async def test_the_run_of_a_deployment_of_it_is_a_plans_too(api, config, tmp_path, monkeypatch):
    counter, gate = tmp_path / "counter", tmp_path / "gate"
    plan = plan_of(f"echo x >> {counter}", f"test -e {gate}")
    compiled = compile_plan(plan, config)
    async with get_client() as client:
        flow_id = await client.create_flow_from_name(compiled.name)
        deployment_id = await client.create_deployment(flow_id, name=f"compiled-{uuid4()}")
        run = await client.create_flow_run_from_deployment(deployment_id)
        await run_flow_async(compiled, run, {}, return_type="state")
    # Another machine's process knows of no plan.
    monkeypatch.setattr(plan_store, "_loaded", OrderedDict())
    async with ExecutionEngine(config) as engine:
        (listed,) = [one for one in await engine.list_executions() if one.id == run.id]
        result = await engine.get_plan_result(run.id)
        assert (listed.kind, result.plan_id, result.stats.completed) == ("plan", plan.id, 1)
        assert await engine.get_status(plan.commands[1].id) is ExecutionStatus.FAILED
    async with get_client() as client:
        gate.touch()
        await client.set_flow_run_state(run.id, AwaitingRetry(), force=True)
        run = await client.read_flow_run(run.id)
        # As a worker that retries it does, which gives what the run has for parameters.
        await run_flow(compiled, run, return_type="state")
    async with ExecutionEngine(config) as engine:
        assert (await engine.get_plan_result(run.id)).stats.completed == 2
    assert counter.read_text() == "x\n"
