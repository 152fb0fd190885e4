"""Bad input gets a clear error before anything starts, and leaves nothing at the API."""

import re

import pytest
from engines import shell
from prefect.client.orchestration import get_client

from cloudops_prefect import (
    AwsCliCommand,
    DependencyGraphStrategy,
    ExecCommand,
    ExecutionEngine,
    ExecutionPlan,
    ExecutionRequest,
    InvalidPlanError,
    InvalidWorkingDirError,
    MissingFieldError,
    ParallelStrategy,
    ScriptCommand,
    ScriptNotFoundError,
    ShellCommand,
    TimeoutTooLargeError,
    ValidationError,
    compile_plan,
    run_shell,
)
from cloudops_prefect.compilation import compile_command

pytestmark = [pytest.mark.anyio, pytest.mark.server]


def request(command) -> ExecutionRequest:
    return ExecutionRequest(command=command)


def graph(dependencies: dict[int, list[int]]) -> ExecutionPlan:
    commands = [shell("true", name=name) for name in ("build", "test", "publish")]
    strategy = DependencyGraphStrategy(dependencies=dependencies)
    return ExecutionPlan(strategy=strategy, commands=commands)


def parallel(max_concurrency: int) -> ExecutionPlan:
    strategy = ParallelStrategy(max_concurrency=max_concurrency)
    return ExecutionPlan(strategy=strategy, commands=[shell("true")])


REQUESTS = {
    "empty program": (request(ExecCommand(program="")), MissingFieldError, "program"),
    "empty command": (request(ShellCommand(command=" ")), MissingFieldError, "command"),
    "empty service": (
        request(AwsCliCommand(service="", operation="ls")),
        MissingFieldError,
        "service",
    ),
    "no such script": (
        request(ScriptCommand(path="/absent/script.sh")),
        ScriptNotFoundError,
        "Script file not found: /absent/script.sh",
    ),
    "directory is a file": (
        shell("true", working_dir=__file__),
        InvalidWorkingDirError,
        f"{__file__} is not a directory",
    ),
    "directory is absent": (
        shell("true", working_dir="/absent"),
        InvalidWorkingDirError,
        "/absent does not exist",
    ),
    "no timeout": (shell("true", timeout_ms=0), ValidationError, "timeout_ms must be above 0"),
    "past timeout": (shell("true", timeout_ms=-1), ValidationError, "timeout_ms must be above 0"),
    "long timeout": (
        shell("true", timeout_ms=600_001),
        TimeoutTooLargeError,
        "Timeout exceeds maximum allowed: 600001ms > 600000ms",
    ),
}
PLANS = {
    "no commands": (ExecutionPlan(commands=[]), "needs at least one command"),
    "no such command": (graph({7: [0]}), "command 7"),
    "waits for no such command": (graph({1: [3]}), "1 (test) waits for command 3"),
    "negative": (graph({1: [-1]}), "command -1"),
    "waits for itself": (graph({2: [2]}), "command 2 (publish) waits for itself"),
    "cycle": (graph({0: [2], 1: [0], 2: [1]}), "0 (build) ->"),
    "no concurrency": (parallel(0), "max_concurrency must be at least 1, not 0"),
    "negative concurrency": (parallel(-1), "max_concurrency must be at least 1, not -1"),
}


@pytest.fixture
async def nothing_new(api):
    """Fails if the test leaves a run at the API."""
    async with get_client() as client:
        before = await client.count_flow_runs()
        yield
        assert await client.count_flow_runs() == before


@pytest.mark.parametrize(("bad", "error", "message"), REQUESTS.values(), ids=REQUESTS)
async def test_a_bad_request_is_refused(nothing_new, config, bad, error, message):
    async with ExecutionEngine(config) as engine:
        with pytest.raises(error, match=re.escape(message)):
            await engine.execute(bad)


@pytest.mark.parametrize(("bad", "error", "message"), REQUESTS.values(), ids=REQUESTS)
async def test_a_plan_with_a_bad_request_is_refused_as_a_whole(
    nothing_new, config, bad, error, message
):
    plan = ExecutionPlan(strategy=ParallelStrategy(), commands=[shell("true"), bad])
    async with ExecutionEngine(config) as engine:
        with pytest.raises(error, match=re.escape(message)):
            await engine.execute_plan(plan)
    assert not config.log_dir.exists()


@pytest.mark.parametrize(("bad", "message"), PLANS.values(), ids=PLANS)
async def test_a_bad_plan_is_refused(nothing_new, config, bad, message):
    async with ExecutionEngine(config) as engine:
        with pytest.raises(InvalidPlanError, match=re.escape(message)):
            await engine.execute_plan(bad)


GIVEN_INSTEAD = {
    "a command": (ShellCommand(command="true"), "ExecutionRequest", "ExecutionRequest(command="),
    "a dict": ({"command": "true"}, "ExecutionRequest", "ExecutionRequest.model_validate("),
    "a text": ("true", "ExecutionRequest", "not str"),
    "a plan": (ExecutionPlan(commands=[]), "ExecutionRequest", "not ExecutionPlan"),
    "a request": (shell("true"), "ExecutionPlan", "ExecutionPlan(commands=["),
}


@pytest.mark.parametrize(("given", "needed", "hint"), GIVEN_INSTEAD.values(), ids=GIVEN_INSTEAD)
async def test_what_is_no_request_or_plan_is_refused_by_what_it_should_be(
    nothing_new, config, given, needed, hint
):
    wanted = f"an {needed} is needed.*{re.escape(hint)}"
    compiled = compile_command if needed == "ExecutionRequest" else compile_plan
    async with ExecutionEngine(config) as engine:
        execute = engine.execute if needed == "ExecutionRequest" else engine.execute_plan
        with pytest.raises(TypeError, match=wanted):
            await execute(given)
    with pytest.raises(TypeError, match=wanted):
        compiled(given)


async def test_a_task_refuses_what_is_no_request(api):
    with pytest.raises(TypeError, match="an ExecutionRequest is needed, not str"):
        await run_shell("true")


async def test_executions_are_listed_by_a_status_that_there_is(api, config):
    async with ExecutionEngine(config) as engine:
        failed = await engine.execute(shell("exit 3"))
        await engine.wait(failed)
        assert failed in {one.id for one in await engine.list_executions(status="failed")}
        with pytest.raises(ValueError, match="'nope' is not a valid ExecutionStatus"):
            await engine.list_executions(status="nope")
