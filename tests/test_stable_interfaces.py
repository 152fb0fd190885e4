"""What others rely on: public names, names and ids at the API, what is stored there, the files."""

import base64
import json
import zlib
from uuid import UUID, uuid5

import pytest
from engines import gated, shell
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)

import cloudops_prefect
from cloudops_prefect import (
    CommandEnvironment,
    ExecutionConfigBlock,
    ExecutionEngine,
    ExecutionMetadata,
    ExecutionPlan,
    ExecutionPlanBlock,
    ExecutionRequest,
    ShellCommand,
    blocks,
    flows,
    run_aws_cli,
    run_exec,
    run_script,
    run_shell,
)

PLAN_ID = "7f1f8bb2-9f4f-4a55-9a5c-1d7a3d0e5a01"
REQUEST_IDS = ["7f1f8bb2-9f4f-4a55-9a5c-1d7a3d0e5a02", "7f1f8bb2-9f4f-4a55-9a5c-1d7a3d0e5a03"]
PUBLIC_NAMES = """
AwsCliCommand
CancelledEvent
Command
CommandEnvironment
CommandExecutionId
CommandFailedError
CompletedEvent
ConsoleHandler
DependencyGraphStrategy
Deployments
EventHandler
ExecCommand
ExecutionCancelledError
ExecutionConfig
ExecutionConfigBlock
ExecutionEngine
ExecutionError
ExecutionEvent
ExecutionIOError
ExecutionMetadata
ExecutionNotCompletedError
ExecutionNotFoundError
ExecutionNotRunningError
ExecutionPlan
ExecutionPlanBlock
ExecutionRequest
ExecutionResult
ExecutionStats
ExecutionStatus
ExecutionStrategy
ExecutionSummary
ExecutionTimeoutError
FailedEvent
FanOutHandler
InvalidCommandError
InvalidPlanError
InvalidWorkingDirError
JsonLinesHandler
MissingFieldError
NotificationHandler
ParallelStrategy
PlanExecutionId
PlanExecutionResult
PlanFile
ProgressEvent
ScriptCommand
ScriptNotFoundError
SerialStrategy
SerializationError
ShellCommand
SpawnFailedError
StartedEvent
StderrEvent
StdoutEvent
TimeoutTooLargeError
UnfinishedLine
ValidationError
__version__
compile_plan
deploy_plan
json_schema
load_plan
load_request
plan_graph
run_aws_cli
run_command
run_exec
run_plan
run_script
run_shell
"""


def test_the_public_names_of_the_package():
    assert sorted(cloudops_prefect.__all__) == PUBLIC_NAMES.split()
    assert all(hasattr(cloudops_prefect, name) for name in cloudops_prefect.__all__)


def test_the_flows_and_tasks_that_deployments_and_callers_name():
    assert (flows.run_plan.name, flows.run_command.name) == ("run-plan", "run-command")
    assert cloudops_prefect.run_plan is flows.run_plan
    assert cloudops_prefect.run_command is flows.run_command
    tasks = [run_script, run_exec, run_shell, run_aws_cli]
    assert [task.name for task in tasks] == ["run_script", "run_exec", "run_shell", "run_aws_cli"]


def test_the_slugs_of_the_blocks():
    slugs = {
        CommandEnvironment: "command-environment",
        ExecutionConfigBlock: "execution-config",
        ExecutionPlanBlock: "execution-plan",
    }
    for block, slug in slugs.items():
        assert block.get_block_type_slug() == slug
        assert getattr(blocks, block.__name__) is block


def plan(*commands: ExecutionRequest) -> ExecutionPlan:
    metadata = ExecutionMetadata(source="ci", conversation_id="42", tags={"team": "sre"})
    return ExecutionPlan(id=UUID(PLAN_ID), commands=[*commands], metadata=metadata)


@pytest.mark.anyio
@pytest.mark.server
async def test_what_is_stored_of_a_run(api, config, tmp_path):
    gate = tmp_path / "gate"
    first, second = map(UUID, REQUEST_IDS)
    async with ExecutionEngine(config) as engine, get_client() as client:
        wanted = plan(gated(gate, id=first, name="one"), shell("exit 3", id=second))
        flow_run_id = await engine.execute_plan(wanted)
        commands = [uuid5(flow_run_id, f"1/{index}") for index in range(2)]
        async for event in engine.stream(flow_run_id):
            if event.event_type == "stdout":
                names = {path.name for path in config.log_dir.iterdir()}
                gate.touch()
        await engine.aclose()
        flow_run = await client.read_flow_run(flow_run_id)
        flow = await client.read_flow(flow_run.flow_id)
        artifacts = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        )
        task_runs = await client.read_task_runs(
            task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
        )
    assert {f"{commands[0]}.log", f"{flow_run_id}.alive"} <= names
    assert flow.name == "run-plan"
    assert {"team:sre", "source:ci", "conversation:42", f"cloudops-id:{PLAN_ID}"} == {
        *flow_run.tags
    }
    assert [one["id"] for one in flow_run.parameters["plan"]["commands"]] == REQUEST_IDS
    assert {"cloudops-directory"} <= flow_run.labels.keys()
    assert sorted(one.id for one in task_runs) == sorted(commands)
    assert {one.key for one in artifacts} == {None, "cloudops-progress", "cloudops-results"}
    results = [one for one in artifacts if one.type == "result"]
    assert {one.data["encoding"] for one in results} == {"cloudops/1+zlib+base64"}
    records = [
        record
        for one in results
        for record in json.loads(zlib.decompress(base64.b64decode(one.data["records"])))
    ]
    assert {(one["index"], one["attempt"], one["result"]["status"]) for one in records} == {
        (0, 1, "completed"),
        (1, 1, "failed"),
    }
    assert {one["flow_run_id"] for one in records} == {str(flow_run_id)}


@pytest.mark.anyio
@pytest.mark.server
async def test_what_is_stored_of_a_large_plan(api, config):
    large = shell("true").model_copy(
        update={"command": ShellCommand(command=f"true {'x' * 100_000}")}
    )
    async with ExecutionEngine(config) as engine, get_client() as client:
        flow_run_id = await engine.execute_plan(plan(*[large] * 3))
        await engine.wait(flow_run_id)
        stored = (await client.read_flow_run(flow_run_id)).parameters["plan"]
        name = stored["metadata"]["tags"]["cloudops-stored-plan"]
        parts = await client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[name]))
        )
    assert stored["commands"] == []
    assert name.startswith("cloudops-plan-")
    packed = "".join(one.data["plan"] for one in sorted(parts, key=lambda one: one.data["part"]))
    commands = json.loads(zlib.decompress(base64.b64decode(packed)))["commands"]
    assert len(commands) == 3
    assert {part.data["of"] for part in parts} == {len(parts)}
