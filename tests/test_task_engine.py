"""The commands of plans as task runs of Prefect's own task engine."""

import pytest
from engines import shell
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from cloudops_prefect import (
    ExecutionEngine,
    ExecutionPlan,
    run_shell,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]


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


async def test_a_command_of_a_plan_has_the_hooks_and_the_context_of_its_task(api, config, seen):
    plan = ExecutionPlan(commands=[shell("true", name="one")])
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        [result] = (await engine.wait(execution_id)).results
    own = result.execution_id
    assert seen == [
        ("run_shell", own, "one", "Running", own),
        ("run_shell", own, "one", "Completed", own),
    ]
