"""What the API is told of runs of this process that it refuses, or has not heard of in time."""

import json
from contextlib import suppress
from uuid import uuid4

import anyio
import httpx
import pytest
from engines import gated, shell, until
from prefect.context import AsyncClientContext
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Crashed, Running, Suspended
from workers import ask, create_pool, deploy

from cloudops_prefect import (
    ExecutionEngine,
    ExecutionPlan,
    ExecutionResult,
    ExecutionStatus,
    artifacts,
    cancellation,
    deployed_runs,
    history,
    local_runs,
    unrecorded,
)
from cloudops_prefect.control import RunControl
from cloudops_prefect.crashes import DIED
from cloudops_prefect.dead_runs import tell_crashes
from cloudops_prefect.liveness import Sign, sign_of_life
from cloudops_prefect.output import OutputLog
from cloudops_prefect.plan_run import task_run_id
from cloudops_prefect.records import ResultRecord, to_artifact
from cloudops_prefect.services import open_services
from cloudops_prefect.tasks import create_task_run
from cloudops_prefect.work import Work

pytestmark = [pytest.mark.anyio, pytest.mark.server]
POOL = "local-runs"


class WayToTheApi(httpx.AsyncHTTPTransport):
    """Does what a test asks for before a request is sent, and when it has been answered."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.after = lambda request: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.before(request) or await super().handle_async_request(request)
        self.after(request)
        return answer


@pytest.fixture
def way():
    return WayToTheApi()


@pytest.fixture
async def services(api, config, way, monkeypatch):
    """What runs need; nobody hears of cancellations at the API."""

    async def watch_nothing(*_):
        pass

    monkeypatch.setattr("cloudops_prefect.services.watch_cancellation", watch_nothing)
    async with (
        AsyncClientContext(httpx_settings={"transport": way}) as context,
        open_services(config, context.client) as services,
    ):
        yield services


async def state_of(services, flow_run):
    return (await services.client.read_flow_run(flow_run.id)).state


async def test_what_is_cancelled_before_it_begins_ends_as_cancelled(services, tmp_path):
    work = Work(shell(f"touch {tmp_path}/ran"))
    flow_run, _ = await local_runs.create_run(services, work, None)
    await services.client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
    await local_runs.drive(services, work, flow_run)
    assert (await state_of(services, flow_run)).is_cancelled()
    assert not (tmp_path / "ran").exists()


async def test_what_ends_before_its_cancellation_is_heard_of_ends_as_cancelled(services, tmp_path):
    work = Work(gated(tmp_path / "gate"))
    flow_run, _ = await local_runs.create_run(services, work, None)

    async def is_running() -> bool:
        return (await state_of(services, flow_run)).is_running()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local_runs.drive, services, work, flow_run)
        await until(is_running)
        await services.client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
        (tmp_path / "gate").touch()
    assert (await state_of(services, flow_run)).is_cancelled()


async def test_an_error_of_the_api_at_the_end_makes_no_failure_of_a_success(services, way):
    failures = [httpx.Response(500)]

    def fail(request):
        body = json.loads(request.content or "{}")
        is_end = isinstance(body, dict) and body.get("state", {}).get("type") == "COMPLETED"
        return failures.pop() if is_end and failures else None

    way.before = fail
    work = Work(shell("true"))
    flow_run, _ = await local_runs.create_run(services, work, None)
    await local_runs.drive(services, work, flow_run)
    assert failures == []
    assert (await state_of(services, flow_run)).is_completed()


def is_beginning(request: httpx.Request) -> bool:
    body = json.loads(request.content or "{}")
    return isinstance(body, dict) and body.get("state", {}).get("type") == "RUNNING"


async def test_an_error_of_the_api_at_the_start_is_no_end_of_the_run(services, way):
    failures = [httpx.Response(500)]
    way.before = lambda request: failures.pop() if failures and is_beginning(request) else None
    work = Work(shell("true"))
    flow_run, _ = await local_runs.create_run(services, work, None)
    await local_runs.drive(services, work, flow_run)
    assert failures == []
    assert (await state_of(services, flow_run)).is_completed()


async def test_an_error_of_the_api_at_the_start_leaves_a_cancelled_run_cancelled(services, way):
    def cancel_and_fail(request):
        if not is_beginning(request):
            return None
        services.control(flow_run.id).cancel()
        return httpx.Response(500)

    way.before = cancel_and_fail
    work = Work(shell("true"))
    flow_run, _ = await local_runs.create_run(services, work, None)
    await local_runs.drive(services, work, flow_run)
    assert (await state_of(services, flow_run)).is_cancelled()


async def test_a_run_of_this_process_goes_on_although_somebody_suspends_it(services, tmp_path):
    # Prefect hears of a suspension within the time of a few commands.
    gate, later = tmp_path / "gate", [shell("sleep 0.25") for _ in range(12)]
    work = Work(ExecutionPlan(commands=[gated(gate), *later]))
    flow_run, _ = await local_runs.create_run(services, work, None)

    async def is_running() -> bool:
        return (await state_of(services, flow_run)).is_running()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local_runs.drive, services, work, flow_run)
        await until(is_running)
        suspended = Suspended(timeout_seconds=600)
        await services.client.set_flow_run_state(flow_run.id, suspended, force=True)
        gate.touch()
    assert (await state_of(services, flow_run)).is_completed()


async def test_a_run_is_created_also_after_somebody_has_deleted_the_local_deployments(services):
    work = Work(shell("true"))
    first, _ = await local_runs.create_run(services, work, None)
    assert first.deployment_id is not None
    await services.client.delete_deployment(first.deployment_id)
    second, _ = await local_runs.create_run(services, work, None)
    assert second.deployment_id not in {None, first.deployment_id}
    for flow_run in (first, second):
        await services.client.set_flow_run_state(flow_run.id, Cancelled(), force=True)


async def test_who_gives_up_while_a_run_is_created_leaves_none_that_waits(services, way):
    def give_up(request):
        if request.url.path.endswith("create_flow_run"):
            scope.cancel()

    way.after = give_up
    request = shell("true")
    with anyio.CancelScope() as scope:
        await local_runs.create_run(services, Work(request), None)
    flow_run = (await history.find(services.client, request.id)).flow_run
    assert (await state_of(services, flow_run)).is_cancelled()


async def test_a_key_has_one_engine_run_what_it_made(api, config, tmp_path):
    counter, gate, key = tmp_path / "counter", tmp_path / "gate", str(uuid4())
    request = shell(f"echo x >> {counter}; exit 1")
    one_at_once = config.model_copy(update={"max_concurrent_executions": 1})
    async with ExecutionEngine(one_at_once) as engine, ExecutionEngine(config) as other:
        await engine.execute(gated(gate))
        execution_id = await engine.execute(request, idempotency_key=key)
        assert await other.execute(request, idempotency_key=key) == execution_id
        assert await other.get_status(execution_id) is ExecutionStatus.PENDING
        gate.touch()
        for each in (other, engine):
            assert (await each.wait(execution_id)).status is ExecutionStatus.FAILED
    assert counter.read_text() == "x\n"


async def test_every_cancelled_run_and_command_is_found_however_many_there_are(
    services, monkeypatch
):
    monkeypatch.setattr(cancellation, "RUN_PAGE_SIZE", 2)
    controls = {}
    for _ in range(5):
        flow_run, _ = await local_runs.create_run(services, Work(shell("true")), None)
        await services.client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
        controls[flow_run.id] = RunControl()
    await cancellation._look(services.client, controls)
    assert all(control.cancelled for control in controls.values())


async def test_a_run_that_was_cancelled_goes_on_when_it_is_resumed(api, config, tmp_path):
    request = shell(f"test -e {tmp_path}/again || {{ echo ready; sleep 60; }}; sleep 1")
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(request)
        async for event in engine.stream(execution_id):
            if event.event_type == "stdout":
                await engine.cancel(execution_id)
    wanted = {
        "event": {"name": ["prefect.flow-run.Cancelled"]},
        "resource": {"id": [f"prefect.flow-run.{execution_id}"]},
    }

    async def is_stored() -> bool:
        return bool(ask("POST", f"{api}/events/filter", {"filter": wanted}).json()["events"])

    await until(is_stored)
    (tmp_path / "again").touch()
    async with ExecutionEngine(config) as engine:
        await engine.resume(execution_id)
        assert (await engine.wait(execution_id)).status is ExecutionStatus.COMPLETED


async def test_what_died_and_was_given_back_is_left_to_who_takes_it(services, config, api):
    client = services.client
    flow_run, _ = await local_runs.create_run(services, Work(shell("true")), None)
    for state in (Running(), Crashed(), AwaitingRetry()):
        await client.set_flow_run_state(flow_run.id, state, force=True)
    with suppress(ProcessLookupError), sign_of_life(config.log_dir, Sign(flow_run.id, 1, api)):
        raise ProcessLookupError
    await tell_crashes(client, config)
    assert (await state_of(services, flow_run)).is_scheduled()
    assert list(config.log_dir.iterdir()) == []


async def test_a_short_plan_is_not_named_again_and_shows_its_progress_once(
    services, way, monkeypatch
):
    monkeypatch.setattr(artifacts, "PROGRESS_INTERVAL_SECONDS", 3600)
    work = Work(ExecutionPlan(commands=[shell("true"), shell("true")]))
    flow_run, _ = await local_runs.create_run(services, work, None)
    names, progress = [], []

    def look(request):
        body = json.loads(request.content or "{}")
        if request.method == "PATCH" and "name" in body:
            names.append(body["name"])
        if isinstance(body, dict) and body.get("type") == "progress":
            progress.append(body["data"])

    way.before = look
    await local_runs.drive(services, work, flow_run)
    assert names == []
    assert progress == [100.0]
    assert (await services.client.read_flow_run(flow_run.id)).name == flow_run.name


async def test_what_died_before_the_api_heard_of_its_commands_is_told_of_each(
    services, config, api
):
    client = services.client
    plan = ExecutionPlan(commands=[shell("echo one"), shell("echo two"), shell("echo three")])
    flow_run, _ = await local_runs.create_run(services, Work(plan), None)
    await client.set_flow_run_state(flow_run.id, Running(), force=True)
    execution = await history.find(client, flow_run.id)
    done, begun, waiting = (one.id for one in history.commands_of(execution, plan))
    with suppress(ProcessLookupError), sign_of_life(config.log_dir, Sign(flow_run.id, 1, api)):
        for execution_id in (done, begun):
            OutputLog.open(config.log_path(execution_id), max_output_bytes=100).close()
        result = ExecutionResult(
            id=plan.commands[0].id, execution_id=done, status=ExecutionStatus.COMPLETED
        )
        record = ResultRecord(flow_run_id=flow_run.id, index=0, attempt=1, result=result)
        await client.create_artifact(to_artifact(flow_run.id, [record]))
        raise ProcessLookupError
    await tell_crashes(client, config)
    told = await unrecorded.task_runs_of(client, flow_run)
    assert {one.id: one.state_name for one in told.values()} == {
        done: "Completed",
        begun: "Crashed",
    }
    results = (
        await history.read_plan_result(client, await history.find(client, flow_run.id))
    ).results
    assert [one.status for one in results] == [
        ExecutionStatus.COMPLETED,
        ExecutionStatus.FAILED,
        ExecutionStatus.CANCELLED,
    ]
    assert [(one.error or "").partition(";")[0] for one in results] == [
        "",
        DIED,
        f"not run: {DIED}",
    ]
    assert results[2].execution_id == waiting
    # The result that was left has none, as those of earlier versions.
    assert [one.name for one in results] == ["echo one", "echo two", "echo three"]


async def test_an_open_engine_knows_what_had_begun_when_a_worker_tells_of_the_death(
    services, config, api
):
    client = services.client
    plan = ExecutionPlan(commands=[shell("echo one"), shell("echo two")])
    async with ExecutionEngine(config) as engine:
        await engine.list_executions(limit=1)
        flow_run, _ = await local_runs.create_run(services, Work(plan), None)
        await client.set_flow_run_state(flow_run.id, Running(), force=True)
        begun, _ = history.commands_of(await history.find(client, flow_run.id), plan)
        with suppress(ProcessLookupError), sign_of_life(config.log_dir, Sign(flow_run.id, 1, api)):
            OutputLog.open(config.log_path(begun.id), max_output_bytes=100).close()
            raise ProcessLookupError
        await client.set_flow_run_state(flow_run.id, Crashed(message="exited with -9"), force=True)
        results = (await engine.get_plan_result(flow_run.id)).results
    assert [one.status for one in results] == [ExecutionStatus.FAILED, ExecutionStatus.CANCELLED]


async def test_an_open_engine_tells_of_a_death_that_nobody_has_seen(services, config, api):
    plan = ExecutionPlan(commands=[shell("echo one"), shell("echo two")])
    async with ExecutionEngine(config) as engine:
        await engine.list_executions(limit=1)
        flow_run, _ = await local_runs.create_run(services, Work(plan), None)
        begun, _ = history.commands_of(await history.find(services.client, flow_run.id), plan)
        with suppress(ProcessLookupError), sign_of_life(config.log_dir, Sign(flow_run.id, 1, api)):
            OutputLog.open(config.log_path(begun.id), max_output_bytes=100).close()
            await services.client.set_flow_run_state(flow_run.id, Running(), force=True)
            assert await engine.get_status(flow_run.id) is ExecutionStatus.RUNNING
            raise ProcessLookupError
        assert await engine.get_status(flow_run.id) is ExecutionStatus.FAILED
        results = (await engine.wait(flow_run.id)).results
    assert [one.status for one in results] == [ExecutionStatus.FAILED, ExecutionStatus.CANCELLED]


async def test_the_list_of_an_open_engine_tells_of_a_death_that_nobody_has_seen(
    services, config, api
):
    async with ExecutionEngine(config) as engine:
        await engine.list_executions(limit=1)
        flow_run, _ = await local_runs.create_run(services, Work(shell("true")), None)
        with suppress(ProcessLookupError), sign_of_life(config.log_dir, Sign(flow_run.id, 1, api)):
            await services.client.set_flow_run_state(flow_run.id, Running(), force=True)
            raise ProcessLookupError
        listed = {one.id: one.status for one in await engine.list_executions()}
    assert listed[flow_run.id] is ExecutionStatus.FAILED


async def test_the_stream_of_an_open_engine_ends_with_a_death_that_nobody_has_seen(
    services, config, api
):
    request, client = shell("true"), services.client
    async with ExecutionEngine(config) as engine:
        flow_run, _ = await local_runs.create_run(services, Work(request), None)
        with suppress(ProcessLookupError), sign_of_life(config.log_dir, Sign(flow_run.id, 1, api)):
            await client.set_flow_run_state(flow_run.id, Running(), force=True)
            begun = task_run_id(flow_run.id, 1, 0)
            await create_task_run(client, request, flow_run.id, begun, Running(), config)
            stream = engine.stream(flow_run.id)
            with anyio.fail_after(20):
                assert (await anext(stream)).event_type == "started"
            raise ProcessLookupError
        with anyio.fail_after(20):
            assert [event.event_type async for event in stream] == ["failed"]


async def test_what_begins_while_it_is_cancelled_has_not_ended_with_that(services, api):
    create_pool(api, POOL)
    await deploy(POOL)
    client = services.client
    deployment = await client.read_deployment_by_name(f"run-command/{POOL}")
    request = shell("true").model_dump(mode="json")
    flow_run = await client.create_flow_run_from_deployment(
        deployment.id, parameters={"request": request}
    )
    await client.set_flow_run_state(flow_run.id, Running(), force=True)
    await deployed_runs.cancel_run(services, flow_run)
    assert (await state_of(services, flow_run)).is_cancelling()
