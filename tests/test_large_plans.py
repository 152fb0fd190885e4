"""Plans of more bytes than the API takes as a parameter."""

import anyio
import pytest
from engines import shell
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from workers import create_pool

from cloudops_prefect import (
    DependencyGraphStrategy,
    Deployments,
    ExecutionEngine,
    ExecutionPlan,
    ExecutionStatus,
    InvalidPlanError,
    ParallelStrategy,
    ValidationError,
    deploy_plan,
    plan_store,
    run_plan,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]
POOL = "large-plans"
LIMIT = 512 * 1024


def large(count: int, command: str, strategy=None) -> ExecutionPlan:
    """A plan of at least 2 MB; no two are the same."""
    padding = "x" * (2_000_000 // count)
    commands = [
        shell(f"{command} # {index}", name=f"c{index}", env={"PADDING": padding})
        for index in range(count)
    ]
    return ExecutionPlan(
        description="A large one", strategy=strategy or ParallelStrategy(), commands=commands
    )


@pytest.fixture
def forgotten(monkeypatch):
    """Makes what this process knows of stored plans unknown, as it is on another machine."""

    def forget():
        monkeypatch.setattr(plan_store, "_loaded", type(plan_store._loaded)())

    return forget


@pytest.fixture
async def deployment(api):
    create_pool(api, POOL)
    async with get_client() as client:
        await client.create_deployment(
            await client.create_flow_from_name(run_plan.name),
            name=POOL,
            work_pool_name=POOL,
            entrypoint="cloudops_prefect.flows.run_plan",
            pull_steps=[],
            parameter_openapi_schema=parameter_schema(run_plan).model_dump(),
            enforce_parameter_schema=True,
        )
    return Deployments(plan=f"run-plan/{POOL}")


async def test_five_thousand_commands_are_dispatched_found_and_told(deployment, config, forgotten):
    edges = {index: [index - 1] for index in range(1, 5000)}
    plan = large(5000, "true", DependencyGraphStrategy(dependencies=edges))
    assert len(plan.model_dump_json()) > 4 * LIMIT
    async with ExecutionEngine(config, deployments=deployment) as engine:
        execution_id = await engine.execute_plan(plan)
        forgotten()
        assert await engine.get_status(plan.commands[4999].id) is ExecutionStatus.PENDING
        await engine.cancel(plan.id)
        result = await engine.get_plan_result(execution_id)
    assert [one.id for one in result.results] == [one.id for one in plan.commands]
    assert (result.stats.cancelled, result.status) == (5000, ExecutionStatus.CANCELLED)
    async with get_client() as client:
        run = await client.read_flow_run(execution_id)
    assert run.parameters["plan"]["description"] == "A large one"
    assert run.parameters["plan"]["commands"] == []


async def test_a_large_plan_runs_here_and_is_resumed_where_nobody_knows_it(
    api, config, forgotten, tmp_path
):
    counter, gate = tmp_path / "counter", tmp_path / "gate"
    plan = large(200, f"echo x >> {counter}")
    failing = shell(f"test -e {gate}")
    plan = plan.model_copy(update={"commands": [*plan.commands, failing]})
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute_plan(plan)
        first = await engine.wait(execution_id, timeout=100)
    assert (first.stats.completed, first.stats.failed) == (200, 1)
    gate.touch()
    forgotten()
    async with ExecutionEngine(config) as other:
        await other.resume(execution_id)
        second = await other.wait(execution_id, timeout=100)
        assert (await other.get_result(plan.commands[7].id)).exit_code == 0
    assert (second.stats.completed, second.stats.total) == (201, 201)
    assert counter.read_text() == "x\n" * 200


async def test_a_large_plan_is_deployed_and_stored_once(deployment, config):
    plan = large(100, "echo deployed")
    for name in ("large", "large-too"):
        deployment_id = await deploy_plan(plan, name=name, work_pool=POOL, config=config)
    async with get_client() as client:
        made = await client.read_deployment(deployment_id)
        run = await client.create_flow_run_from_deployment(deployment_id)
        name = made.parameters["plan"]["metadata"]["tags"]["cloudops-stored-plan"]
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[name]))
        assert len(await client.read_artifacts(artifact_filter=wanted)) == 1
    assert made.description == "A large one"
    async with ExecutionEngine(config) as engine:
        await engine.cancel(run.id)
        assert (await engine.get_plan_result(run.id)).stats.total == 100


async def test_a_stored_plan_that_is_gone_is_missed_by_its_name(deployment, config, forgotten):
    plan = large(100, "echo gone")
    async with ExecutionEngine(config, deployments=deployment) as engine, get_client() as client:
        execution_id = await engine.execute_plan(plan)
        run = await client.read_flow_run(execution_id)
        name = run.parameters["plan"]["metadata"]["tags"]["cloudops-stored-plan"]
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[name]))
        for artifact in await client.read_artifacts(artifact_filter=wanted):
            await client.delete_artifact(artifact.id)
        forgotten()
        with pytest.raises(InvalidPlanError, match=name):
            await engine.get_plan_result(execution_id)
        assert execution_id in [one.id for one in await engine.list_executions()]


async def test_a_request_that_the_api_would_not_take_is_refused_in_words(api, config):
    request = shell("true", env={str(n): "x" * 100_000 for n in range(6)})
    async with ExecutionEngine(config) as engine:
        with pytest.raises(ValidationError, match="the API takes 524,288"):
            await engine.execute(request)


@pytest.mark.parametrize(
    "given", ["positional", "keyword", "dict", "state", "subflow", "future", "retries"]
)
async def test_a_large_plan_that_a_caller_gives_to_the_flow_runs(api, forgotten, given):
    plan = large(20, "echo called")
    written = plan.model_dump(mode="json")

    @flow
    async def caller():
        return await run_plan(plan)

    @flow
    async def caller_with_a_future():
        return await run_plan(task(large).submit(20, "echo called"))

    async def state():
        return await (await run_plan(plan, return_state=True)).aresult()

    call = {
        "positional": lambda: run_plan(plan),
        "keyword": lambda: run_plan(plan=plan),
        "dict": lambda: run_plan(written),
        "state": state,
        "subflow": caller,
        "future": caller_with_a_future,
        "retries": lambda: run_plan.with_options(retries=1)(plan),
    }[given]
    told = await call()
    assert told.results[19].stdout == "called\n"
    forgotten()
    async with ExecutionEngine() as engine:
        result = await engine.get_plan_result(told.plan_id)
    assert (result.execution_id, result.stats.completed) == (told.execution_id, 20)


def test_a_large_plan_runs_where_no_event_loop_does(prefect_api):
    plan = large(20, "echo called")
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        result = anyio.run(run_plan, plan)
    assert result.stats.completed == 20


async def test_a_large_plan_that_is_no_plan_is_refused_as_a_small_one(api):
    written = large(20, "true").model_dump(mode="json") | {"strategy": {"type": "sideways"}}
    with pytest.raises(ParameterTypeError, match="sideways"):
        await run_plan(written)


async def test_how_the_api_counts_is_how_plans_are_measured(api, config):
    # Some 200 KB as UTF-8, and 600 KB with each letter as an escape.
    request = shell("echo called", env={"PADDING": "\u00e4" * 50_000})
    plan = ExecutionPlan(commands=[request, request])
    async with ExecutionEngine(config) as engine:
        result = await engine.wait(await engine.execute_plan(plan), timeout=30)
    assert result.status is ExecutionStatus.COMPLETED
