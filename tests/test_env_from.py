"""Variables and secrets out of blocks: they reach the command, and the secrets nobody else."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from engines import shell
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr
from small_api import small_api

from cloudops_prefect import (
    ExecutionEngine,
    ExecutionIOError,
    ExecutionPlan,
    ExecutionStatus,
    ParallelStrategy,
    tasks,
)
from cloudops_prefect.block_env import read_environment
from cloudops_prefect.blocks import CommandEnvironment

pytestmark = [pytest.mark.anyio, pytest.mark.server]
SECRET = "correct-horse-battery"
PRINTS = 'echo "$STAGE $DSN"; echo "$DSN" >&2'


@pytest.fixture
async def block(api) -> AsyncIterator[str]:
    """The name of a saved block."""
    name = f"deploy-{uuid4()}"
    environment = CommandEnvironment(
        variables={"STAGE": "production"}, secrets={"DSN": SecretStr(SECRET)}
    )
    await environment.save(name)
    yield f"command-environment/{name}"
    await CommandEnvironment.adelete(name)


async def api_logs(flow_run_id) -> str:
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    async with get_client() as client:
        return "".join(log.message for log in await client.read_logs(wanted))


async def api_parameters(flow_run_id) -> str:
    async with get_client() as client:
        return str((await client.read_flow_run(flow_run_id)).parameters)


async def test_a_command_gets_the_variables_and_secrets_of_a_block(api, block, config):
    request = shell(f'test "$DSN" = {SECRET} && echo $STAGE', env_from=[block])
    async with ExecutionEngine(config) as engine:
        result = await engine.wait(await engine.execute(request))
    assert (result.status, result.stdout) == (ExecutionStatus.COMPLETED, "production\n")


async def test_a_secret_is_hidden_in_results_log_files_and_at_the_api(api, block, config):
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(shell(PRINTS, env_from=[block]))
        result = await engine.wait(execution_id)
        log = engine.get_log_path(execution_id).read_text()
    assert (result.stdout, result.stderr) == ("production ********\n", "********\n")
    assert sorted(log.split()) == ["********", "********", "production"]
    shown = await api_logs(execution_id)
    assert "production ********" in shown
    assert SECRET not in shown + await api_parameters(execution_id)


async def test_every_command_of_a_plan_gets_the_blocks_of_the_plan(api, block, config):
    commands = [shell("echo $STAGE"), shell("echo $STAGE", env={"STAGE": "test"})]
    plan = ExecutionPlan(commands=commands, env_from=[block])
    async with ExecutionEngine(config) as engine:
        result = await engine.wait(await engine.execute_plan(plan))
    assert [one.stdout for one in result.results] == ["production\n", "test\n"]


async def test_a_block_that_does_not_exist_fails_the_command_before_it_starts(
    api, config, tmp_path
):
    request = shell(f"touch {tmp_path}/ran", env_from=["command-environment/absent"])
    async with ExecutionEngine(config) as engine:
        result = await engine.wait(await engine.execute(request))
    assert (result.status, result.exit_code) == (ExecutionStatus.FAILED, -1)
    assert "command-environment/absent" in (result.error or "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("status", [403, 500])
async def test_an_api_that_does_not_give_a_block_refuses_the_command(status):
    with small_api() as api, temporary_settings({PREFECT_API_URL: api.url}):
        api.answer = lambda path, size: status
        with pytest.raises(ExecutionIOError, match=rf"'command-environment/deploy'.* {status}"):
            await read_environment(["command-environment/deploy"])


async def test_whatever_goes_wrong_with_one_command_is_no_trouble_of_the_others(
    api, config, monkeypatch
):
    async def read_environment(names):
        raise LookupError(*names)

    monkeypatch.setattr(tasks, "read_environment", read_environment)
    fails = shell("true", env_from=["command-environment/absent"])
    plan = ExecutionPlan(
        commands=[fails, shell("sleep 0.3; echo ran")], strategy=ParallelStrategy()
    )
    async with ExecutionEngine(config) as engine:
        result = await engine.wait(await engine.execute_plan(plan))
        failed, other = result.results
        assert (failed.status, failed.exit_code) == (ExecutionStatus.FAILED, -1)
        assert "LookupError('command-environment/absent')" in (failed.error or "")
        assert (other.status, other.stdout) == (ExecutionStatus.COMPLETED, "ran\n")
        single = await engine.wait(await engine.execute(fails))
        assert single.error == failed.error
