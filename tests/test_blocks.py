"""The block classes: what Prefect asks of all, how they are saved, and what they give."""

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr
from pydantic import ValidationError as WrongTypesError
from workers import environment, prefect

from cloudops_prefect import (
    AwsCliCommand,
    CommandEnvironment,
    ExecutionConfig,
    ExecutionConfigBlock,
    ExecutionEngine,
    ExecutionPlan,
    ExecutionPlanBlock,
    ExecutionRequest,
    ShellCommand,
    ValidationError,
)
from cloudops_prefect.block_env import read_environment

ROOT = Path(__file__).parents[1]
CLASSES = [CommandEnvironment, ExecutionConfigBlock, ExecutionPlanBlock]


class TestEveryBlock(BlockStandardTestSuite):
    @pytest.fixture(params=CLASSES, ids=lambda block: block.__name__)
    def block(self, request) -> type[Block]:
        return request.param

    def test_has_a_valid_image(self, block) -> None:
        # The suite would download a logo, and no place on the web has one of this package.
        assert block._logo_url is None


def test_the_entry_point_is_light():
    """Prefect's server, worker and command line import it each time they start."""
    heavy = ["engine", "flows", "tasks", "history", "deployments"]
    code = "import sys, cloudops_prefect.blocks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    modules = done.stdout.split()
    assert "cloudops_prefect.blocks" in modules, done.stderr
    assert [name for name in heavy if f"cloudops_prefect.{name}" in modules] == []


@pytest.mark.server
def test_they_register_by_the_name_of_the_package(prefect_api, tmp_path):
    printed = prefect(prefect_api, tmp_path, "block", "register", "-m", "cloudops_prefect")
    assert "registered 3 blocks" in printed


def test_a_config_block_has_every_setting():
    assert {*ExecutionConfigBlock.model_fields} == {*ExecutionConfig.model_fields}


def test_what_a_config_block_leaves_out_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CLOUDOPS_GRACE_PERIOD_MS", "77")
    monkeypatch.setenv("CLOUDOPS_MAX_TIMEOUT_MS", "90000")
    block = ExecutionConfigBlock(max_timeout_ms=200_000, redact_env=["*PIN"])
    config = block.config()
    assert (config.grace_period_ms, config.max_timeout_ms) == (77, 200_000)
    assert config.redact_env == ("*PIN",)


def test_a_config_block_refuses_what_is_no_config():
    with pytest.raises(WrongTypesError, match="above max_timeout_ms"):
        ExecutionConfigBlock(default_timeout_ms=2000, max_timeout_ms=1000)


@pytest.mark.anyio
@pytest.mark.server
async def test_a_stored_plan_without_its_deployment_says_so(api):
    plan = ExecutionPlan(commands=[ExecutionRequest(command=ShellCommand(command="true"))])
    block = ExecutionPlanBlock(plan=plan, deployment="run-plan/absent")
    with pytest.raises(ValidationError, match="no deployment 'run-plan/absent'"):
        await block.trigger()


@pytest.mark.anyio
@pytest.mark.server
async def test_the_api_hides_every_secret_and_gives_it_to_those_who_may_read_it(api):
    name = f"hidden-{uuid4()}"
    secrets = {"TOKEN": SecretStr("first-secret"), "KEY": SecretStr("second-secret")}
    await CommandEnvironment(variables={"STAGE": "test"}, secrets=secrets).asave(name)
    async with get_client() as client:
        hidden = await client.read_block_document_by_name(
            name, "command-environment", include_secrets=False
        )
    assert hidden.data["secrets"] == {"TOKEN": "********", "KEY": "********"}
    assert hidden.data["variables"] == {"STAGE": "test"}
    found = await read_environment([f"command-environment/{name}"])
    assert found.env == {"STAGE": "test", "TOKEN": "first-secret", "KEY": "second-secret"}
    assert set(found.secrets) == {"first-secret", "second-secret"}


@pytest.fixture
def cloud():
    """The address of AWS, as moto plays it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.anyio
@pytest.mark.server
async def test_aws_credentials_feed_the_aws_cli(api, config, cloud):
    name = f"aws-{uuid4()}"
    await AwsCredentials(
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key=SecretStr("secret-access-key"),
        region_name="eu-central-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=cloud),
    ).asave(name)
    found = await read_environment([f"aws-credentials/{name}"])
    assert found.secrets == ("secret-access-key",)
    assert found.env == {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret-access-key",
        "AWS_SESSION_TOKEN": "",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": cloud,
    }
    request = ExecutionRequest(
        command=AwsCliCommand(service="sts", operation="get-caller-identity"),
        env_from=[f"aws-credentials/{name}"],
    )
    async with ExecutionEngine(config) as engine:
        result = await engine.wait(await engine.execute(request))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["Account"] == "123456789012"


@pytest.mark.anyio
@pytest.mark.server
async def test_aws_credentials_with_a_role_are_that_roles(api, cloud, monkeypatch):
    # prefect-aws asks STS without the block's own endpoint.
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud)
    name = f"role-{uuid4()}"
    await AwsCredentials(
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key=SecretStr("secret-access-key"),
        region_name="eu-central-1",
        assume_role_arn="arn:aws:iam::123456789012:role/deploy",
    ).asave(name)
    found = await read_environment([f"aws-credentials/{name}"])
    assert found.env["AWS_ACCESS_KEY_ID"].startswith("ASIA")
    assert found.env["AWS_SESSION_TOKEN"]
    assert set(found.secrets) == {
        found.env["AWS_SECRET_ACCESS_KEY"],
        found.env["AWS_SESSION_TOKEN"],
    }


@pytest.mark.anyio
@pytest.mark.server
async def test_a_block_that_gives_no_environment_is_refused(api):
    name = f"config-{uuid4()}"
    await ExecutionConfigBlock().asave(name)
    with pytest.raises(ValidationError, match="gives no environment"):
        await read_environment([f"execution-config/{name}"])


@pytest.mark.server
def test_the_script_saves_each_example_once(prefect_api, tmp_path):
    env = environment(prefect_api, tmp_path) | {"DEPLOY_TOKEN": "secret-of-the-script"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(ROOT / "blocks" / "save_examples.py")],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    slugs = [block.get_block_type_slug() for block in CLASSES]
    assert done.stdout.split() == [f"{slug}/example" for slug in slugs]
