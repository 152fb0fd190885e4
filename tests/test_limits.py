"""How many commands of an engine run at once, and in which order the rest has its turn."""

import pytest
from engines import gated, most_at_once, overlapping, shell, until

from cloudops_prefect import (
    ExecutionConfig,
    ExecutionEngine,
    ExecutionPlan,
    ExecutionStatus,
    ParallelStrategy,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]


@pytest.fixture
def one_at_once(config) -> ExecutionConfig:
    return config.model_copy(update={"max_concurrent_executions": 1})


async def has_printed(engine, request, line: str = "ready") -> None:
    async for event in engine.stream(request.id):
        if event.event_type == "stdout" and event.line == line:
            return


async def test_single_commands_and_those_of_plans_share_the_limit_of_an_engine(
    api, config, tmp_path
):
    config = config.model_copy(update={"max_concurrent_executions": 2})
    record = tmp_path / "record"
    plan = ExecutionPlan(strategy=ParallelStrategy(), commands=[overlapping(record)] * 3)
    async with ExecutionEngine(config) as engine:
        ids = [
            await engine.execute(overlapping(record)),
            await engine.execute_plan(plan),
            await engine.with_event_handler(Silent()).execute(overlapping(record)),
        ]
        results = [await engine.wait(one, timeout=60) for one in ids]
    assert {one.status for one in results} == {ExecutionStatus.COMPLETED}
    assert record.read_text().count("+") == 5
    assert most_at_once(record) == 2


class Silent:
    async def on_event(self, event) -> None:
        """Takes it."""


async def test_what_waits_for_its_turn_is_pending(api, one_at_once, tmp_path):
    first, single = gated(tmp_path / "gate"), shell("true")
    plan = ExecutionPlan(strategy=ParallelStrategy(), commands=[shell("true")] * 2)
    async with ExecutionEngine(one_at_once) as engine:
        await engine.execute(first)
        await has_printed(engine, first)
        execution_id = await engine.execute_plan(plan)
        await engine.execute(single)
        statuses = [await engine.get_status(one.id) for one in (single, *plan.commands)]
        assert statuses == [ExecutionStatus.PENDING] * 3
        assert await engine.get_status(first.id) is ExecutionStatus.RUNNING
        (tmp_path / "gate").touch()
        await engine.wait(execution_id, timeout=60)
        assert (await engine.wait(single.id, timeout=60)).status is ExecutionStatus.COMPLETED


async def test_who_came_first_runs_first(api, one_at_once, tmp_path):
    record = tmp_path / "record"
    first = gated(tmp_path / "gate")
    append = [shell(f"echo {name} >> {record}") for name in "abcdef"]
    async with ExecutionEngine(one_at_once) as engine:
        await engine.execute(first)
        await has_printed(engine, first)
        ids = [
            await engine.execute(append[0]),
            await engine.execute_plan(ExecutionPlan(commands=append[1:2])),
            await engine.execute_plan(ExecutionPlan(commands=append[2:3])),
            await engine.execute(append[3]),
            await engine.execute_plan(
                ExecutionPlan(strategy=ParallelStrategy(), commands=append[4:])
            ),
        ]
        (tmp_path / "gate").touch()
        for one in ids:
            await engine.wait(one, timeout=60)
    assert record.read_text().split() == [*"abcdef"]


async def test_a_command_cancelled_before_its_turn_never_runs(api, one_at_once, tmp_path):
    first, second = gated(tmp_path / "gate"), shell(f"touch {tmp_path}/ran")
    async with ExecutionEngine(one_at_once) as engine:
        await engine.execute(first)
        await has_printed(engine, first)
        await engine.execute(second)
        await engine.cancel(second.id)
        await until(lambda: has_ended(engine, second))
        result = await engine.get_result(second.id)
        (listed,) = await engine.list_executions(limit=1)
        (tmp_path / "gate").touch()
        assert (await engine.wait(first.id, timeout=60)).status is ExecutionStatus.COMPLETED
    assert (result.status, result.started_at) == (ExecutionStatus.CANCELLED, None)
    assert (listed.id, listed.started_at) == (result.execution_id, None)
    assert result.error == "Execution cancelled"
    assert not (tmp_path / "ran").exists()


async def has_ended(engine, request) -> bool:
    return (await engine.get_status(request.id)).is_final


async def test_a_place_is_free_again_after_every_way_to_end(api, one_at_once, tmp_path):
    commands = [shell("exit 1"), shell("sleep 60", timeout_ms=200), shell("echo", env_from=["a/b"])]
    async with ExecutionEngine(one_at_once) as engine:
        ids = [await engine.execute(one) for one in commands]
        ids.append(await engine.execute(shell("true")))
        statuses = [(await engine.wait(one, timeout=60)).status for one in ids]
    assert statuses == ["failed", "timeout", "failed", "completed"]
