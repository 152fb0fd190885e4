"""Secrets in what the Prefect API is given, against a real server."""

from uuid import uuid4

import pytest
from engines import shell
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.settings import PREFECT_API_KEY, PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

from cloudops_prefect import (
    ExecutionConfig,
    ExecutionEngine,
    ExecutionPlan,
    TimeoutTooLargeError,
)
from cloudops_prefect.blocks import CommandEnvironment
from cloudops_prefect.flows import run_command, run_plan
from cloudops_prefect.naming import plan_run_name, shown_name
from cloudops_prefect.records import from_artifact

MASK = "********"
OWN = "pnu_the-key-of-this-process"
BLOCK = "the-secret-of-a-block"
NAMED = "the-value-of-a-variable"


def test_a_block_with_a_short_secret_is_refused_and_no_secret_is_quoted():
    for short in ("", "abc", "  abc "):
        with pytest.raises(ValidationError) as refused:
            CommandEnvironment(secrets={"LONG": BLOCK, "PIN": short})
        assert "the secret PIN has fewer than 4 characters" in str(refused.value)
        assert BLOCK not in str(refused.value)
    assert CommandEnvironment(secrets={"PIN": "1234"}).secret_values() == {"PIN": "1234"}


def test_names_are_cut_after_their_secrets_are_replaced():
    request = shell(f"echo {'x' * 65} {NAMED}", env={"A_TOKEN": NAMED})
    assert request.display_name.endswith(" the-valu…")
    assert shown_name(request) == f"echo {'x' * 65} {MASK}"
    plan = ExecutionPlan(description=f"Use {NAMED}", commands=[request])
    assert plan_run_name(plan) == f"Use {MASK}"
    with temporary_settings({PREFECT_API_KEY: OWN}):
        assert shown_name(shell(f"curl -H {OWN}")) == f"curl -H {MASK}"


@pytest.mark.anyio
@pytest.mark.server
async def test_nothing_that_the_api_keeps_of_a_run_shows_a_secret(prefect_api, tmp_path):
    with temporary_settings({PREFECT_API_URL: prefect_api, PREFECT_API_KEY: OWN}):
        name = f"deploy-{uuid4().hex}"
        await CommandEnvironment(secrets={"FROM_BLOCK": BLOCK}).asave(name)
        names = f"command-environment/{name}"
        command = f'echo "$FROM_BLOCK $VALUE {OWN} {NAMED}" | tee /dev/stderr; exit 3'
        env = {"VALUE": NAMED, "A_TOKEN": NAMED}
        plan = ExecutionPlan(
            description=f"Show {NAMED}",
            commands=[
                shell(command, env=env, env_from=[names]),
                shell(f"./{NAMED}", env=env),
            ],
        )
        async with ExecutionEngine(ExecutionConfig(log_dir=tmp_path)) as engine:
            execution_id = await engine.execute_plan(plan)
            result = await engine.wait(execution_id)
        kept = await kept_by_the_api(execution_id)
    shown = f"{MASK} {MASK} {MASK} {MASK}\n"
    assert (result.results[0].stdout, result.results[0].stderr) == (shown, shown)
    everything = [
        *kept,
        result.model_dump_json(),
        *(p.read_text("latin1") for p in tmp_path.iterdir()),
    ]
    for text in everything:
        for secret in (OWN, BLOCK, NAMED):
            assert secret not in text
    assert sum(MASK in text for text in kept) >= 6


async def kept_by_the_api(flow_run_id):
    """All that the API has of a run, except the parameters that it was started with."""
    async with get_client() as client:
        run = await client.read_flow_run(flow_run_id)
        tasks = await client.read_task_runs(
            task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
        )
        logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])))
        artifacts = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        )
    assert tasks
    assert logs
    assert len(artifacts) >= 3
    return [
        run.model_dump_json(exclude={"parameters"}),
        *(one.model_dump_json() for one in tasks),
        *(one.model_dump_json() for one in logs),
        *(one.model_dump_json() for one in artifacts),
        *(record.model_dump_json() for one in artifacts for record in from_artifact(one)),
    ]


@pytest.mark.anyio
@pytest.mark.server
async def test_a_flow_that_refuses_its_parameters_does_not_quote_their_secrets(api, monkeypatch):
    monkeypatch.setenv("CLOUDOPS_MAX_TIMEOUT_MS", "300000")
    long = {"timeout_ms": 400_000, "env": {"A_TOKEN": NAMED}}
    named = shell("true", name=f"use {NAMED}", **long)
    refusal = str(TimeoutTooLargeError(400_000, 300_000))
    for request, where in ((shell(NAMED, **long), ""), (named, f", use {MASK}")):
        state = await run_plan(ExecutionPlan(commands=[request]), return_state=True)
        hint = "CLOUDOPS_MAX_TIMEOUT_MS raises that"
        assert state.message == f"{refusal} (commands[0]{where}); {hint}"
        state = await run_command(request, return_state=True)
        assert state.message == f"{refusal}; {hint}"
