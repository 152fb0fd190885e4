"""What becomes of a plan's commands under each strategy, against a real Prefect server."""

import gc

import pytest
from engines import gated, most_at_once, overlapping, shell, until
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId

from cloudops_prefect import (
    DependencyGraphStrategy,
    ExecutionEngine,
    ExecutionNotCompletedError,
    ExecutionPlan,
    ExecutionStatus,
    ParallelStrategy,
    SerialStrategy,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]
GOES_ON = SerialStrategy(stop_on_error=False)


async def run(config, plan: ExecutionPlan):
    async with ExecutionEngine(config) as engine:
        return await engine.wait(await engine.execute_plan(plan), timeout=60)


async def states_of(flow_run_id) -> dict[str, str]:
    """The names of the states of a run's task runs, by what the task runs are called."""
    wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
    async with get_client() as client:
        return {
            run.name: run.state_name for run in await client.read_task_runs(task_run_filter=wanted)
        }


async def test_parallel_runs_all_whatever_fails(api, config):
    commands = [shell("exit 4"), shell("echo on"), shell("kill -9 $$"), shell("echo too")]
    result = await run(config, ExecutionPlan(strategy=ParallelStrategy(), commands=commands))
    assert [one.status for one in result.results] == ["failed", "completed"] * 2
    assert [one.exit_code for one in result.results] == [4, 0, -9, 0]
    assert result.status is ExecutionStatus.FAILED


async def test_a_parallel_plan_runs_as_many_commands_at_once_as_it_allows(api, config, tmp_path):
    record = tmp_path / "record"
    strategy = ParallelStrategy(max_concurrency=2)
    result = await run(config, ExecutionPlan(strategy=strategy, commands=[overlapping(record)] * 5))
    assert result.stats.completed == 5
    assert most_at_once(record) == 2


async def test_a_parallel_plan_without_a_bound_runs_all_at_once(api, config, tmp_path):
    # Each waits for all the others.
    command = f"touch {tmp_path}/$$; until test $(ls {tmp_path} | wc -l) -gt 4; do sleep 0.02; done"
    commands = [shell(command, timeout_ms=20_000)] * 4
    result = await run(config, ExecutionPlan(strategy=ParallelStrategy(), commands=commands))
    assert result.stats.completed == 4


async def test_what_waits_for_a_failed_command_does_not_run_and_everything_else_does(
    api, config, tmp_path
):
    strategy = DependencyGraphStrategy(dependencies={1: [0], 2: [1], 3: [0, 4], 5: [4]})
    commands = [
        shell("exit 5", name="bad"),
        shell(f"touch {tmp_path}/child", name="child"),
        shell(f"touch {tmp_path}/grandchild", name="grandchild"),
        shell(f"touch {tmp_path}/half", name="half"),
        shell("echo fine", name="fine"),
        shell("echo last", name="last"),
    ]
    result = await run(config, ExecutionPlan(strategy=strategy, commands=commands))
    statuses = [one.status for one in result.results]
    assert statuses == ["failed", "cancelled", "cancelled", "cancelled", "completed", "completed"]
    for left_out in result.results[1:4]:
        assert left_out.error == "not run: bad failed"
        assert (left_out.started_at, left_out.exit_code) == (None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert result.stats.model_dump() == {
        "total": 6,
        "completed": 2,
        "failed": 1,
        "cancelled": 3,
        "timeout": 0,
    }


async def test_the_task_runs_of_what_was_left_out_have_ended_too(api, config):
    strategy = DependencyGraphStrategy(dependencies={1: [0], 2: [1]})
    commands = [
        shell("sleep 60", name="slow", timeout_ms=200),
        shell("true", name="next"),
        shell("true", name="last"),
        shell("exit 2", name="bad"),
        shell("true", name="good"),
    ]
    result = await run(config, ExecutionPlan(strategy=strategy, commands=commands))
    assert result.results[2].error == "not run: slow timed out"
    assert await states_of(result.execution_id) == {
        "slow": "TimedOut",
        "next": "Cancelled",
        "last": "Cancelled",
        "bad": "Failed",
        "good": "Completed",
    }


@pytest.mark.parametrize(
    ("last", "status", "stats"),
    [
        ("true", "completed", {"completed": 2}),
        ("false", "failed", {"completed": 1, "failed": 1}),
        ("sleep 60", "failed", {"completed": 1, "timeout": 1}),
    ],
)
async def test_a_plan_has_completed_only_if_all_of_it_has(api, config, last, status, stats):
    plan = ExecutionPlan(commands=[shell("true"), shell(last, timeout_ms=500)])
    result = await run(config, plan)
    assert result.status == status
    assert result.stats.model_dump(exclude_defaults=True) == {"total": 2} | stats


async def test_the_result_of_a_plan_joins_what_its_commands_printed_in_the_order_of_the_plan(
    api, config, tmp_path
):
    second = gated(tmp_path / "gate", "echo one; echo uno >&2")
    first = shell(f"echo two; echo due >&2; touch {tmp_path}/gate; exit 6")
    plan = ExecutionPlan(strategy=ParallelStrategy(), commands=[second, first, shell("exit 7")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        await engine.wait(execution_id, timeout=60)
        whole = await engine.get_result(execution_id)
    assert (whole.stdout, whole.stderr) == ("ready\none\ntwo\n", "uno\ndue\n")
    assert (whole.id, whole.execution_id) == (plan.id, execution_id)
    assert (whole.status, whole.exit_code) == (ExecutionStatus.FAILED, 6)


async def test_cancelling_a_plan_keeps_what_has_completed_and_says_what_has_not_run(
    api, config, tmp_path
):
    commands = [shell("echo kept"), gated(tmp_path / "never"), shell("echo no"), shell("echo 0")]
    plan = ExecutionPlan(commands=commands)
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        async for event in engine.stream(execution_id):
            if event.event_type == "stdout" and event.line == "ready":
                await engine.cancel(execution_id)
        result = await engine.wait(execution_id, timeout=60)
    assert [one.status for one in result.results] == ["completed", *["cancelled"] * 3]
    assert [one.stdout for one in result.results] == ["kept\n", "ready\n", "", ""]
    assert [one.error for one in result.results] == [
        None,
        "Execution cancelled",
        *["not run: the plan was cancelled"] * 2,
    ]
    assert [one.started_at is None for one in result.results] == [False, False, True, True]
    assert result.status is ExecutionStatus.CANCELLED
    assert (result.stats.total, result.stats.completed, result.stats.cancelled) == (4, 1, 3)
    assert [*(await states_of(execution_id)).values()].count("Cancelled") == 3


async def test_leaving_the_engine_cancels_a_plan_and_the_api_knows(api, config, tmp_path):
    plan = ExecutionPlan(commands=[gated(tmp_path / "never"), shell("echo no")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        await until(lambda: is_status(engine, plan.commands[0].id, ExecutionStatus.RUNNING))
        with pytest.raises(ExecutionNotCompletedError):
            await engine.get_plan_result(execution_id)
    async with ExecutionEngine(config) as other:
        result = await other.get_plan_result(execution_id)
    assert result.status is ExecutionStatus.CANCELLED
    assert {*(await states_of(execution_id)).values()} == {"Cancelled"}


async def is_status(engine, execution_id, status: ExecutionStatus) -> bool:
    return await engine.get_status(execution_id) is status


async def test_equal_requests_of_a_plan_are_two_commands(api, config, tmp_path):
    counter = tmp_path / "counter"
    request = shell(f"echo x >> {counter}; wc -l < {counter}")
    result = await run(config, ExecutionPlan(commands=[request, request]))
    assert [one.stdout.strip() for one in result.results] == ["1", "2"]
    assert result.results[0].execution_id != result.results[1].execution_id


async def test_a_request_executed_twice_makes_two_executions_and_its_id_means_the_newest(
    api, config, tmp_path
):
    counter = tmp_path / "counter"
    request = shell(f"echo x >> {counter}; wc -l < {counter}")
    async with ExecutionEngine(config) as engine:
        first = await engine.execute(request)
        await engine.wait(first)
        second = await engine.execute(request)
        await engine.wait(second)
        assert (await engine.get_result(first)).stdout.strip() == "1"
    async with ExecutionEngine(config) as other:
        newest = await other.get_result(request.id)
    assert first != second
    assert (newest.execution_id, newest.stdout.strip()) == (second, "2")


async def test_the_id_of_a_request_means_its_newest_execution_also_inside_of_a_plan(api, config):
    request = shell("echo $RANDOM")
    plan = ExecutionPlan(commands=[shell("true"), request])
    async with ExecutionEngine(config) as engine:
        await engine.wait(await engine.execute_plan(plan))
        newest = await engine.wait(await engine.execute_plan(plan))
        by_request = await engine.get_result(request.id)
        by_command = await engine.get_result(newest.results[1].execution_id)
        by_plan = await engine.get_plan_result(plan.id)
        log = await engine.read_logs(request.id)
    assert by_request == by_command == newest.results[1]
    assert by_plan == newest
    assert newest.results[1].stdout == log


async def test_the_id_of_a_request_means_its_newest_execution_whoever_has_made_it(api, config):
    request = shell("echo $RANDOM")
    plan = ExecutionPlan(commands=[shell("true"), request])
    async with ExecutionEngine(config) as engine, ExecutionEngine(config) as other:
        await engine.wait(await engine.execute(request))
        by_other = await other.wait(await other.execute(request))
        assert await engine.get_result(request.id) == by_other
        in_plan = await other.wait(await other.execute_plan(plan))
        assert await engine.get_result(request.id) == in_plan.results[1]
        assert await other.get_result(request.id) == in_plan.results[1]
        single = await engine.wait(await engine.execute(request))
        assert await engine.get_result(request.id) == single
        assert await other.get_result(request.id) == single


async def test_cancelling_by_the_id_of_a_request_cancels_its_newest_execution(
    api, config, tmp_path
):
    request = gated(tmp_path / "gate")
    async with ExecutionEngine(config) as engine, ExecutionEngine(config) as other:
        older = await engine.execute(request)
        newer = await other.execute(request)
        await engine.cancel(request.id)
        assert (await other.wait(newer, timeout=30)).status is ExecutionStatus.CANCELLED
        (tmp_path / "gate").touch()
        assert (await engine.wait(older, timeout=30)).status is ExecutionStatus.COMPLETED


async def test_a_key_makes_an_execution_that_of_another_request_too(api, config):
    first, second = shell("true"), shell("false")
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(first, idempotency_key="one of two requests")
        await engine.execute(second, idempotency_key="one of two requests")
        assert await engine.wait(second.id) == await engine.wait(execution_id)


async def test_the_id_of_a_request_finds_the_log_of_its_newest_execution(api, config, tmp_path):
    request = gated(tmp_path / "gate", timeout_ms=200)
    plan = ExecutionPlan(commands=[request])
    async with ExecutionEngine(config) as engine:
        single = await engine.wait(await engine.execute(request))
        assert engine.get_log_path(request.id) == single.log_path
        in_plan = await engine.wait(await engine.execute_plan(plan))
        assert engine.get_log_path(request.id) == in_plan.results[0].log_path
        (tmp_path / "gate").touch()
        again = await engine.wait(await engine.resume(plan.id))
        assert engine.get_log_path(request.id) == again.results[0].log_path
    assert len({single.log_path, in_plan.results[0].log_path, again.results[0].log_path}) == 3


async def test_a_command_of_a_plan_is_known_by_its_id_as_soon_as_it_has_started(
    api, config, tmp_path
):
    plan = ExecutionPlan(commands=[gated(tmp_path / "gate")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        async for event in engine.stream(execution_id):
            if event.event_type == "started":
                known = event.execution_id
                break
        assert not (await engine.get_status(known)).is_final
        (tmp_path / "gate").touch()
        result = await engine.wait(execution_id, timeout=60)
        assert await engine.get_result(known) == result.results[0]


async def test_who_waits_for_a_command_of_a_plan_does_not_wait_for_the_plan(api, config, tmp_path):
    plan = ExecutionPlan(commands=[shell("echo first"), gated(tmp_path / "gate")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        async for event in engine.stream(execution_id):
            if event.event_type == "started":
                first = await engine.wait(event.execution_id, timeout=60)
                break
        assert (first.status, first.stdout) == ("completed", "first\n")
        assert not (await engine.get_status(execution_id)).is_final
        (tmp_path / "gate").touch()
        assert (await engine.wait(execution_id, timeout=60)).results[0] == first


async def test_who_breaks_off_the_stream_of_a_plan_goes_on_undisturbed(api, config, tmp_path):
    plan = ExecutionPlan(commands=[gated(tmp_path / "gate"), shell("echo on")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        for kind in ("progress", "started", "stdout"):
            async for event in engine.stream(execution_id):
                if event.event_type == kind:
                    break
            gc.collect()
        (tmp_path / "gate").touch()
        result = await engine.wait(execution_id, timeout=60)
        kinds = [event.event_type async for event in engine.stream(execution_id)]
    assert result.status is ExecutionStatus.COMPLETED
    assert kinds.count("completed") == 2
    assert kinds[-1] == "progress"
