"""The real AWS CLI, against a server of the AWS API on this machine."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudops_prefect import (
    AwsCliCommand,
    DependencyGraphStrategy,
    ExecutionEngine,
    ExecutionPlan,
    ExecutionRequest,
)

pytestmark = [pytest.mark.anyio, pytest.mark.server]
INSTANCES = {"eu-west-1": 1, "ap-south-1": 2}


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """A server of the AWS API; its address."""
    program = Path(sys.executable).with_name("moto_server")
    with subprocess.Popen(
        [program, "--host", "127.0.0.1", "--port", "0"],
        env=os.environ | {"PYTHONUNBUFFERED": "1", "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield _address(process)
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    """Reads the server's first lines until it says where it is, and what it says later away."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://[\d.]+:\d+", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return found[0]
    pytest.fail("the server of the AWS API did not start")


@pytest.fixture
def account(aws, monkeypatch, tmp_path) -> str:
    """Everything that the AWS CLI may find on this machine, replaced by what is in no account."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return aws


def call(service: str, operation: str, *args: str, region: str = "us-east-1") -> ExecutionRequest:
    command = AwsCliCommand(service=service, operation=operation, args=[*args], region=region)
    return ExecutionRequest(command=command)


async def run(config, plan: ExecutionPlan):
    async with ExecutionEngine(config) as engine:
        result = await engine.wait(await engine.execute_plan(plan), timeout=100)
    assert result.stats.completed == len(plan.commands), [one.stderr for one in result.results]
    return [one.stdout for one in result.results]


async def test_a_file_goes_into_a_new_bucket_and_is_listed(api, account, config, tmp_path):
    (tmp_path / "release.txt").write_text("version 1\n")
    plan = ExecutionPlan(
        commands=[
            call("s3api", "create-bucket", "--bucket", "releases"),
            call("s3", "cp", str(tmp_path / "release.txt"), "s3://releases/v1/release.txt"),
            call("s3api", "list-objects-v2", "--bucket", "releases"),
        ]
    )
    created, copied, listed = await run(config, plan)
    assert json.loads(created)["Location"] == "/releases"
    assert "upload: " in copied
    (found,) = json.loads(listed)["Contents"]
    assert (found["Key"], found["Size"]) == ("v1/release.txt", len("version 1\n"))


async def test_instances_of_two_regions_are_described_in_parallel(api, account, config, tmp_path):
    launched = [
        call("ec2", "run-instances", "--image-id", "ami-1", "--count", str(count), region=region)
        for region, count in INSTANCES.items()
    ]
    described = [call("ec2", "describe-instances", region=region) for region in INSTANCES]
    strategy = DependencyGraphStrategy(dependencies={2: [0], 3: [1]})
    plan = ExecutionPlan(strategy=strategy, commands=[*launched, *described])
    outputs = await run(config, plan)
    assert {region: zones(text) for region, text in zip(INSTANCES, outputs[2:], strict=True)} == {
        region: [f"{region}a"] * count for region, count in INSTANCES.items()
    }


def zones(text: str) -> list[str]:
    """Where the instances are that an answer of EC2 tells of."""
    return [
        instance["Placement"]["AvailabilityZone"]
        for reservation in json.loads(text)["Reservations"]
        for instance in reservation["Instances"]
    ]


async def test_a_call_that_aws_refuses_fails_with_what_aws_says(api, account, config):
    async with ExecutionEngine(config) as engine:
        request = call("s3api", "list-objects-v2", "--bucket", "absent")
        result = await engine.wait(await engine.execute(request), timeout=100)
    assert result.status == "failed"
    assert result.exit_code not in {0, -1, None}
    assert "NoSuchBucket" in result.stderr
