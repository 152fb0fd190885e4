"""Nothing is remembered only in a process: what an engine in another one knows, and can do."""

from collections.abc import Iterator

import pytest
from engines import SecondEngine, gated, second_engine, shell, until

from cloudops_prefect import ExecutionEngine, ExecutionPlan, ExecutionStatus, SerialStrategy

pytestmark = [pytest.mark.anyio, pytest.mark.server]


@pytest.fixture(scope="module")
def other(prefect_api, tmp_path_factory) -> Iterator[SecondEngine]:
    """An engine without access to the logs of the first one."""
    with second_engine(prefect_api, tmp_path_factory.mktemp("other")) as engine:
        yield engine


async def test_it_gives_the_same_answers_about_what_has_ended(api, config, other):
    plan = ExecutionPlan(commands=[shell("echo out; echo err >&2"), shell("exit 3"), shell("true")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        result = await engine.wait(execution_id)
        listed = await engine.list_executions()
        log = await engine.read_logs(execution_id)
    assert other("get_plan_result", execution_id) == result.model_dump(mode="json")
    assert other("get_result", execution_id) == result.as_result().model_dump(mode="json")
    told = {one["id"]: one for one in other("list_executions")}
    # Of what other tests run here the durations grow; fewer than half of the list can be new.
    ended = [one for one in listed[:50] if one.status.is_final]
    assert execution_id in {one.id for one in ended}
    for one in ended:
        assert told[str(one.id)] == one.model_dump(mode="json")
    assert sorted(other("read_logs", execution_id).split()) == sorted(log.split()) == ["err", "out"]
    for request, one in zip(plan.commands, result.results, strict=True):
        assert other("get_status", request.id) == one.status
        assert other("get_result", one.execution_id) == one.model_dump(mode="json")


async def test_it_sees_what_runs_and_its_output_and_cancels_it(api, config, other, tmp_path):
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(gated(tmp_path / "never"))

        async def printed() -> bool:
            return other("read_logs", execution_id) == "ready\n"

        await until(printed)
        assert other("get_status", execution_id) == "running"
        assert other("get_result", execution_id)["error"] == "ExecutionNotCompletedError"
        assert other("cancel", execution_id) is None
        result = await engine.wait(execution_id, timeout=30)
    assert (result.status, result.stdout) == (ExecutionStatus.CANCELLED, "ready\n")
    assert other("get_result", execution_id) == result.model_dump(mode="json")
    assert other("cancel", execution_id)["error"] == "ExecutionNotRunningError"


async def test_it_cancels_a_plan_of_which_the_rest_does_not_run(api, config, other, tmp_path):
    plan = ExecutionPlan(commands=[gated(tmp_path / "never"), shell(f"touch {tmp_path}/ran")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)

        async def running() -> bool:
            return other("get_status", plan.commands[0].id) == "running"

        await until(running)
        assert other("cancel", plan.id) is None
        result = await engine.wait(execution_id, timeout=30)
    assert result.status is ExecutionStatus.CANCELLED
    assert [one.status for one in result.results] == ["cancelled"] * 2
    assert not (tmp_path / "ran").exists()
    assert other("get_plan_result", plan.id) == result.model_dump(mode="json")


async def test_it_cancels_a_command_whose_turn_has_not_come(api, config, other, tmp_path):
    plan = ExecutionPlan(
        strategy=SerialStrategy(stop_on_error=False),
        commands=[gated(tmp_path / "never"), shell(f"touch {tmp_path}/ran"), shell("true")],
    )
    runs, later, _ = [request.id for request in plan.commands]
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)

        async def running() -> bool:
            return other("get_status", runs) == "running"

        await until(running)
        assert other("cancel", later) is None
        assert other("get_status", later) == "pending"
        # Who hears of this has heard of that.
        assert other("cancel", runs) is None
        result = await engine.wait(execution_id, timeout=30)
    assert [one.status for one in result.results] == ["cancelled", "cancelled", "completed"]
    assert not (tmp_path / "ran").exists()
    assert other("get_plan_result", plan.id) == result.model_dump(mode="json")


async def test_it_says_so_when_there_is_no_such_execution(api, other):
    unknown = "00000000-0000-4000-8000-000000000000"
    for method in ("get_status", "get_result", "get_plan_result", "read_logs", "cancel"):
        answer = other(method, unknown)
        assert answer["error"] == "ExecutionNotFoundError", method
        assert answer["message"] == f"Execution not found: {unknown}"
