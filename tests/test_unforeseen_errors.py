"""Whatever a part of the runner raises, the run ends and says so, and nobody waits for ever."""

import asyncio
import sys
from contextlib import suppress
from uuid import UUID

import anyio
import pytest
from engines import second_engine, shell
from in_process import Cloudops
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.settings import PREFECT_API_URL, temporary_settings
from raising import BOOM, boom, break_parts
from running import PROGRAMS
from workers import create_pool, process_worker

from cloudops_prefect import (
    CompletedEvent,
    Deployments,
    ExecutionEngine,
    ExecutionError,
    ExecutionPlan,
    FailedEvent,
    ParallelStrategy,
    PlanExecutionResult,
    StartedEvent,
    compile_plan,
    run_shell,
)
from cloudops_prefect.naming import id_tag

pytestmark = [pytest.mark.anyio, pytest.mark.server]
BOUND = 90
POOL = "broken"

PREPARING = ["compilation:_prepare", "plan_run:PlanRun.__init__", "compilation:PlanProgress"]
"""What is done before the first command."""
RUNNING = [
    "plan_run:PlanRun._wait_for_slots",
    "line:Line.turn",
    "execution:CommandExecution.open",
    "execution:run_process",
    "execution:run_process execution:CommandExecution.fail",
    "execution:CommandExecution._ended",
    "plan_run:run_command_task",
    "command_task_engine:CommandTaskEngine.run",
    "command_task_engine:CommandTaskEngine.call_task_fn",
]
"""What is done for each command; without it a command has failed."""
SENDING = [
    "plan_run:leave_result",
    "plan_run:PlanRun._publish",
    "publishing:Publisher.add_result",
    "publishing:Publisher.run",
    "publishing:Publisher.flush",
    "task_run_ledger:TaskRunLedger.until_sent",
    "publishing:to_artifact",
    "execution:CommandExecution.result_with_output",
    "compilation:results_table",
    "artifacts:PlanProgress.show",
]
"""What is done with a result that there is; the run is what its commands are."""
ENDING = ["compilation:plan_state_of", "plan_run:PlanRun.in_order"]
"""What is done when the last command has ended."""
AROUND = ["local_runs:_run_flow", "work:Work.compiled"]
"""What an engine does around the flow of a run in its process."""
UNHEARD = [
    "services:watch_cancellation",
    "services:watch_stranded",
    "task_run_ledger:TaskRunLedger.run",
    "task_run_ledger:TaskRunLedger.report_lost",
    "task_run_ledger:TaskRunLedger.until_recorded",
    "event_delivery:EventSender.run",
    "event_delivery:EventSender.add",
    "output_feed:OutputFeed.next_records",
]
"""What serves a run whose end does not depend on it."""


def two_commands(**fields) -> ExecutionPlan:
    return ExecutionPlan(commands=[shell("echo one"), shell("echo two")], **fields)


@pytest.fixture(scope="module")
def reader(prefect_api, tmp_path_factory):
    """An engine of another process in which nothing is broken."""
    with second_engine(prefect_api, tmp_path_factory.mktemp("reader")) as ask:
        yield ask


async def final_state(flow_run_id: UUID):
    async with get_client() as client:
        state = (await client.read_flow_run(flow_run_id)).state
    assert state.is_final(), state
    return state


async def run_of(plan: ExecutionPlan):
    """The run of a plan that has one."""
    wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[id_tag(plan.id)]))
    async with get_client() as client:
        (flow_run,) = await client.read_flow_runs(flow_run_filter=wanted)
    return flow_run


def told(result: dict) -> str:
    """What a plan's result, as another process reads it, says of errors."""
    return " ".join(one["error"] or "" for one in result["results"])


class Collector:
    def __init__(self) -> None:
        self.events = []

    async def on_event(self, event) -> None:
        self.events.append(event)

    def ended(self) -> list:
        return [one for one in self.events if isinstance(one, CompletedEvent | FailedEvent)]


async def end_of_local_run(plan: ExecutionPlan, config) -> tuple[PlanExecutionResult, Collector]:
    """Runs a plan here with a handler and a stream, and waits for all that can be waited for."""
    handler = Collector()
    with anyio.fail_after(BOUND):
        async with ExecutionEngine(config).with_event_handler(handler) as engine:
            execution_id = await engine.execute_plan(plan)
            _ = [event async for event in engine.stream(execution_id)]
            result = await engine.wait(execution_id)
            assert await engine.get_status(execution_id) == result.status
            assert (await engine.get_plan_result(execution_id)).status == result.status
            assert (await engine.get_result(execution_id)).status == result.status
    return result, handler


@pytest.mark.parametrize("parts", [*PREPARING, *AROUND])
async def test_a_run_that_cannot_begin_fails_and_says_why(parts, api, config, monkeypatch, reader):
    with monkeypatch.context() as patch:
        break_parts(patch, parts.split(), boom())
        result, _ = await end_of_local_run(two_commands(), config)
    state = await final_state(result.execution_id)
    assert state.is_failed()
    assert BOOM in state.message
    read = reader("get_plan_result", result.execution_id)
    assert [one["status"] for one in read["results"]] == ["cancelled"] * 2
    assert told(read).count(BOOM) == 2
    assert BOOM in reader("get_result", result.execution_id)["error"]


@pytest.mark.parametrize("parts", RUNNING)
async def test_a_command_that_cannot_be_run_fails_and_says_why(
    parts, api, config, monkeypatch, reader
):
    with monkeypatch.context() as patch:
        break_parts(patch, parts.split(), boom())
        result, handler = await end_of_local_run(two_commands(), config)
    first, second = result.results
    assert (first.status, first.exit_code) == ("failed", -1)
    assert BOOM in first.error
    assert (second.status, second.error) == ("cancelled", "not run: echo one failed")
    (ended,) = handler.ended()
    assert ended.error == first.error
    assert (await final_state(result.execution_id)).is_failed()
    assert reader("get_plan_result", result.execution_id) == result.model_dump(mode="json")


@pytest.mark.parametrize("parts", SENDING)
async def test_what_cannot_be_sent_changes_no_status_and_is_said(
    parts, api, config, monkeypatch, reader
):
    with monkeypatch.context() as patch:
        break_parts(patch, parts.split(), boom())
        result, _ = await end_of_local_run(two_commands(), config)
    assert (result.status, result.stats.completed) == ("completed", 2)
    state = await final_state(result.execution_id)
    assert state.is_completed()
    assert state.message.startswith("2 of 2 commands completed; ")
    assert BOOM in state.message
    read = reader("get_plan_result", result.execution_id)
    assert [one["exit_code"] for one in read["results"]] == [0, 0]


@pytest.mark.parametrize("parts", ENDING)
async def test_a_run_whose_end_cannot_be_told_has_failed(parts, api, config, monkeypatch, reader):
    with monkeypatch.context() as patch:
        break_parts(patch, parts.split(), boom())
        result, handler = await end_of_local_run(two_commands(), config)
    assert (result.status, result.stats.completed) == ("failed", 2)
    assert [one.stdout for one in result.results] == ["one\n", "two\n"]
    assert len(handler.ended()) == 2
    assert BOOM in (await final_state(result.execution_id)).message
    read = reader("get_result", result.execution_id)
    assert (read["status"], read["exit_code"]) == ("failed", 0)
    assert BOOM in read["error"]


@pytest.mark.parametrize("parts", UNHEARD)
async def test_a_service_that_fails_ends_no_run(parts, api, config, monkeypatch):
    with monkeypatch.context() as patch:
        break_parts(patch, parts.split(), boom())
        result, handler = await end_of_local_run(two_commands(), config)
    assert result.status == "completed"
    assert len(handler.ended()) == 2
    assert (await final_state(result.execution_id)).is_completed()


@pytest.mark.parametrize(
    "error", [SystemExit(3), asyncio.CancelledError(BOOM), ExceptionGroup(BOOM, [boom()])]
)
@pytest.mark.parametrize(
    "parts", ["plan_run:PlanRun._settle", "compilation:_prepare", "execution:run_process"]
)
async def test_errors_that_are_no_plain_ones_end_a_run_too(
    parts, error, api, config, monkeypatch, reader
):
    with monkeypatch.context() as patch:
        break_parts(patch, [parts], error)
        result, _ = await end_of_local_run(two_commands(), config)
    assert result.status == "failed"
    assert (await final_state(result.execution_id)).is_failed()
    name = "RuntimeError" if isinstance(error, ExceptionGroup) else type(error).__name__
    assert name in told(reader("get_plan_result", result.execution_id))


async def test_commands_that_cannot_even_be_waited_for_fail(api, config, monkeypatch):
    with monkeypatch.context() as patch:
        break_parts(patch, ["plan_run:PlanRun._settle"], boom())
        result, handler = await end_of_local_run(two_commands(), config)
    assert [one.status for one in result.results] == ["failed"] * 2
    assert [BOOM in one.error for one in [*result.results, *handler.ended()]] == [True] * 4


async def test_the_other_commands_of_a_plan_are_left_alone(api, config, monkeypatch):
    from cloudops_prefect.execution import CommandExecution

    runs = CommandExecution.open

    def fail_once(self):
        if self.request.name == "broken":
            raise boom()
        return runs(self)

    monkeypatch.setattr(CommandExecution, "open", fail_once)
    commands = [shell("sleep 0.5; echo whole"), shell("true", name="broken"), shell("echo too")]
    plan = ExecutionPlan(commands=commands, strategy=ParallelStrategy())
    result, _ = await end_of_local_run(plan, config)
    assert [one.status for one in result.results] == ["completed", "failed", "completed"]
    assert [one.stdout for one in result.results] == ["whole\n", "", "too\n"]


async def test_a_resume_runs_what_something_unforeseen_has_kept_from_running(
    api, config, monkeypatch, tmp_path
):
    plan = ExecutionPlan(
        commands=[shell(f"echo x >> {tmp_path}/1"), shell(f"echo x >> {tmp_path}/2")]
    )
    with anyio.fail_after(BOUND):
        async with ExecutionEngine(config) as engine:
            with monkeypatch.context() as patch:
                break_parts(patch, ["compilation:plan_state_of"], boom())
                execution_id = await engine.execute_plan(plan)
                assert (await engine.wait(execution_id)).status == "failed"
            await engine.resume(execution_id)
            assert (await engine.wait(execution_id)).status == "completed"
    assert [(tmp_path / name).read_text() for name in ("1", "2")] == ["x\n", "x\n"]


@pytest.mark.parametrize("part", ["compilation:_prepare", "execution:run_process"])
async def test_a_single_command_ends_and_says_why(part, api, config, monkeypatch, reader):
    handler = Collector()
    with monkeypatch.context() as patch, anyio.fail_after(BOUND):
        break_parts(patch, [part], boom())
        async with ExecutionEngine(config).with_event_handler(handler) as engine:
            execution_id = await engine.execute(shell("echo one"))
            events = [event async for event in engine.stream(execution_id)]
            result = await engine.wait(execution_id)
    assert result.status == "failed"
    assert BOOM in result.error
    assert isinstance(events[0], StartedEvent)
    assert BOOM in events[-1].error
    assert handler.ended() == events[-1:]
    assert BOOM in (await final_state(execution_id)).message
    assert reader("get_result", execution_id)["error"] == result.error


async def test_a_single_command_whose_end_cannot_be_told_has_failed(
    api, config, monkeypatch, reader
):
    with monkeypatch.context() as patch, anyio.fail_after(BOUND):
        break_parts(patch, ["compilation:command_state_of"], boom())
        async with ExecutionEngine(config) as engine:
            execution_id = await engine.execute(shell("echo one"))
            result = await engine.wait(execution_id)
            assert await engine.get_status(execution_id) == "failed"
    assert (result.status, result.exit_code, result.stdout) == ("failed", 0, "one\n")
    assert BOOM in result.error
    assert reader("get_result", execution_id)["status"] == "failed"


async def test_an_execution_that_cannot_be_started_is_not_left_pending(api, config, monkeypatch):
    plan = two_commands()
    async with ExecutionEngine(config) as engine:
        with monkeypatch.context() as patch:
            break_parts(patch, ["runtime:Runtime.drive"], boom())
            with pytest.raises(RuntimeError, match=BOOM):
                await engine.execute_plan(plan)
        assert BOOM in (await final_state((await run_of(plan)).id)).message
        assert (await engine.wait(plan.id, timeout=BOUND)).status == "failed"


async def test_an_end_that_could_not_be_reported_is_reported_when_it_is_asked_for(
    api, config, monkeypatch
):
    async with ExecutionEngine(config) as engine:
        with monkeypatch.context() as patch:
            break_parts(
                patch, ["local_runs:_run_and_report_end", "local_runs:report_again"], boom()
            )
            execution_id = await engine.execute_plan(two_commands())
            with suppress(RuntimeError):
                await engine.wait(execution_id, timeout=BOUND)
        with anyio.fail_after(BOUND):
            assert (await engine.wait(execution_id)).status == "failed"
    assert BOOM in (await final_state(execution_id)).message


@pytest.mark.parametrize(
    "parts",
    [
        "compilation:_prepare",
        "compilation:present",
        "services:Publisher",
        "plan_run:PlanRun._settle",
        "execution:run_process",
        "compilation:plan_state_of",
        "execution:CommandExecution.result_with_output compilation:results_table",
        "publishing:to_artifact",
    ],
)
async def test_a_compiled_plan_that_is_called_ends_and_says_why(
    parts, api, monkeypatch, tmp_path, reader
):
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(tmp_path / "logs"))
    plan = two_commands()
    runs: list[UUID] = []

    @flow
    async def release():
        compiled = compile_plan(plan)
        compiled.on_running_hooks.append(lambda _flow, run, _state: runs.append(run.id))
        return await compiled()

    outcome: object = None
    with monkeypatch.context() as patch, anyio.fail_after(BOUND):
        break_parts(patch, parts.split(), boom())
        try:
            outcome = await release()
        except ExecutionError as error:
            outcome = error
    state = await final_state(runs[0])
    assert state.is_completed() == isinstance(outcome, PlanExecutionResult)
    if parts != "compilation:present":
        assert BOOM in told(reader("get_plan_result", runs[0])) + state.message


async def test_a_task_of_a_users_flow_fails_and_says_why(api, monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(tmp_path / "logs"))

    @flow
    async def release():
        return (await run_shell(shell("echo one"), return_state=True)).message

    with monkeypatch.context() as patch, anyio.fail_after(BOUND):
        break_parts(patch, ["execution:run_process"], boom())
        assert BOOM in await release()


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ("compilation:_prepare", 1),
        ("plan_run:PlanRun._settle", 1),
        ("compilation:plan_state_of", 1),
        ("local_runs:_run_flow", 1),
        ("execution:CommandExecution.result_with_output", 0),
    ],
)
def test_the_command_line_ends_and_says_why(parts, code, prefect_api, tmp_path, monkeypatch):
    plan = tmp_path / "plan.yaml"
    plan.write_text("commands:\n  - run: echo one\n  - run: echo two\n")
    cloudops = Cloudops(prefect_api, tmp_path / "logs")
    with monkeypatch.context() as patch:
        break_parts(patch, parts.split(), boom())
        done = cloudops("run", plan)
    assert done.returncode == code
    assert BOOM in done.stdout
    (newest, *_) = cloudops.json("list", "--limit", 1)
    assert newest["status"] == ("failed" if code else "completed")
    assert BOOM in cloudops("result", newest["id"]).stdout


DEPLOYED = {
    "preparing": "compilation:_prepare",
    "presenting": "flows:present",
    "services": "services:Publisher",
    "settling": "plan_run:PlanRun._settle",
    "running": "execution:run_process",
    "ending": "compilation:plan_state_of",
    "sending": "publishing:to_artifact",
    "artifacts": "compilation:results_table artifacts:PlanProgress.show",
}


async def deploy_broken(name: str, parts: str) -> None:
    env = {"PYTHONPATH": str(PROGRAMS), "CLOUDOPS_TEST_BROKEN_PARTS": parts}
    async with get_client() as client:
        await client.create_deployment(
            await client.create_flow_from_name("run-plan"),
            name=f"broken-{name}",
            work_pool_name=POOL,
            entrypoint="broken_flows.run_plan",
            pull_steps=[],
            job_variables={"command": f"{sys.executable} -m prefect.engine", "env": env},
        )


@pytest.fixture(scope="module")
def broken_deployments(prefect_api, tmp_path_factory):
    create_pool(prefect_api, POOL)

    async def deploy_all() -> None:
        for name, parts in DEPLOYED.items():
            await deploy_broken(name, parts)

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        anyio.run(deploy_all)
    with process_worker(prefect_api, tmp_path_factory.mktemp("broken-worker"), POOL):
        yield


async def test_deployed_runs_end_and_say_why(broken_deployments, api, config, reader):
    results: dict[str, PlanExecutionResult] = {}

    async def run(name: str) -> None:
        deployments = Deployments(command="none/none", plan=f"run-plan/broken-{name}")
        engine = ExecutionEngine(config, deployments=deployments).with_event_handler(Collector())
        async with engine:
            execution_id = await engine.execute_plan(two_commands())
            _ = [event async for event in engine.stream(execution_id)]
            results[name] = await engine.wait(execution_id)

    with anyio.fail_after(5 * BOUND):
        async with anyio.create_task_group() as tasks:
            for name in DEPLOYED:
                tasks.start_soon(run, name)
    for name, result in results.items():
        state = await final_state(result.execution_id)
        assert (name, BOOM in f"{state.message} {told(result.model_dump())}") == (name, True)
        completed = name in {"sending", "artifacts"}
        assert (name, state.is_completed(), result.status == "completed") == (
            name,
            completed,
            completed,
        )
        assert reader("get_status", result.execution_id) == result.status
