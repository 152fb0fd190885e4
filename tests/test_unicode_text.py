"""Names that are not UTF-8: a program is given their bytes, everybody else text."""

import json
import os
import pickle
import subprocess
import sys
from uuid import uuid4

import pytest
from engines import second_engine, shell, until
from in_process import Cloudops, run_captured
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter

from cloudops_prefect import (
    AwsCliCommand,
    ExecCommand,
    ExecutionEngine,
    ExecutionError,
    ExecutionMetadata,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionResult,
    FailedEvent,
    InvalidCommandError,
    InvalidWorkingDirError,
    ScriptCommand,
    ScriptNotFoundError,
    ValidationError,
    compile_plan,
)
from cloudops_prefect.artifacts import RESULTS_KEY
from cloudops_prefect.unicode_text import quoted_bytes, valid_text

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="file names of macOS are UTF-8"),
]

BAD = os.fsdecode(b"d\xe9")
SHOWN = "d\N{REPLACEMENT CHARACTER}"
CALLED = [sys.executable, "-m", "cloudops_prefect"]
PLAN = """\
commands:
  - name: removes
    run: rm script.sh; basename "$(pwd)" | od -An -tx1
  - name: removed
    script: ./script.sh
"""


@pytest.fixture
def bad_directory(tmp_path, monkeypatch):
    """A directory whose name is not UTF-8, with a plan that loses its script, to work in."""
    directory = tmp_path / BAD
    directory.mkdir()
    (directory / "plan.yaml").write_text(PLAN)
    (directory / "script.sh").write_text("true\n")
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def bad_log_dir(tmp_path, monkeypatch):
    directory = tmp_path / os.fsdecode(b"l\xe9g")
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(directory))
    return directory


def lost_script_plan() -> ExecutionPlan:
    request = ExecutionRequest(command=ScriptCommand(path="script.sh"))
    return ExecutionPlan(commands=[shell("rm script.sh"), request])


def test_lone_surrogates_are_replaced_and_all_else_stays():
    assert valid_text(f"{BAD} \ud800 ä \N{GRINNING FACE}\0") == (
        f"{SHOWN} \N{REPLACEMENT CHARACTER} ä \N{GRINNING FACE}\0"
    )


@pytest.mark.parametrize("name", [b"caf\xe9", b"it's \\ \xff\n", b"\xc3 \xa9"])
def test_bash_reads_what_is_written_for_it(name):
    written = quoted_bytes(os.fsdecode(name))
    assert written.isascii()
    assert subprocess.check_output(["bash", "-c", f"printf %s {written}"]) == name


def test_errors_are_text_also_after_pickling():
    error = ScriptNotFoundError(f"/{BAD}/x.sh")
    assert error.path == f"/{BAD}/x.sh"
    assert str(error) == str(pickle.loads(pickle.dumps(error)))
    assert str(error) == f"Script file not found: /{SHOWN}/x.sh"
    assert str(ExecutionError(BAD)) == SHOWN


def test_a_result_has_the_true_path_in_python_and_text_in_json(tmp_path):
    path = tmp_path / BAD / "x.log"
    one = uuid4()
    result = ExecutionResult(
        id=one, execution_id=one, status="failed", log_path=path, error=f"no {BAD}"
    )
    assert result.log_path == path
    assert result.model_dump()["log_path"] == path
    read = json.loads(result.model_dump_json())
    assert (read["log_path"], read["error"]) == (f"{tmp_path}/{SHOWN}/x.log", f"no {SHOWN}")
    event = FailedEvent(execution_id=one, request_id=one, error=f"no {BAD}")
    assert json.loads(event.model_dump_json())["error"] == f"no {SHOWN}"


def test_names_and_metadata_are_text():
    metadata = ExecutionMetadata(source=BAD, conversation_id=BAD, tags={BAD: BAD})
    request = shell("true", name=BAD, metadata=metadata)
    plan = ExecutionPlan(commands=[request], description=BAD, metadata=metadata)
    plan.validate()
    assert BAD not in plan.model_dump_json()
    assert json.loads(plan.model_dump_json())["metadata"]["tags"] == {SHOWN: SHOWN}
    assert (plan.description, plan.commands[0].name) == (SHOWN, SHOWN)


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"command": ExecCommand(program="ls", args=[BAD])}, InvalidCommandError),
        ({"command": ScriptCommand(path=BAD)}, InvalidCommandError),
        ({"command": AwsCliCommand(service="s3", operation="ls", args=[BAD])}, InvalidCommandError),
        ({"command": ExecCommand(program="ls"), "env": {"A": BAD}}, InvalidCommandError),
        ({"command": ExecCommand(program="ls"), "env": {BAD: "a"}}, InvalidCommandError),
        ({"command": ExecCommand(program="ls"), "output_log_path": BAD}, InvalidCommandError),
        ({"command": ExecCommand(program="ls"), "working_dir": BAD}, InvalidWorkingDirError),
        ({"command": ExecCommand(program="ls"), "env_from": [f"b/{BAD}"]}, ValidationError),
    ],
)
def test_what_the_api_could_not_keep_is_refused_with_the_way_to_write_it(fields, refusal):
    with pytest.raises(refusal, match=r"can't be written as UTF-8: \$'.*d\\xe9'"):
        ExecutionRequest(**fields).validate()


async def test_a_plan_in_a_directory_whose_name_is_not_utf8_ends_and_says_why(
    api, bad_directory, bad_log_dir
):
    plan = lost_script_plan()
    async with ExecutionEngine() as engine:
        execution_id = await engine.execute_plan(plan)
        events = [event async for event in engine.stream(execution_id)]
        result = await engine.wait(execution_id, timeout=60)
        reason = f"Script file not found: {bad_directory.parent}/{SHOWN}/script.sh"
        assert [one.status for one in result.results] == ["completed", "failed"]
        assert result.results[1].error == reason
        (failed,) = [event for event in events if isinstance(event, FailedEvent)]
        assert failed.error == reason
        first = result.results[0]
        assert engine.get_log_path(first.execution_id).parent == bad_log_dir
        assert engine.get_log_path(first.execution_id).exists()
    with second_engine(api, bad_log_dir) as ask:
        told = ask("get_plan_result", execution_id)
        assert told["results"][1]["error"] == reason
    async with get_client() as client:
        task_run = await client.read_task_run(result.results[1].execution_id)
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[execution_id]))
        artifacts = await client.read_artifacts(artifact_filter=wanted)
    assert task_run.state.message == reason
    (table,) = [one for one in artifacts if one.key == RESULTS_KEY]
    assert "l\N{REPLACEMENT CHARACTER}g" in json.loads(table.data)[0]["log"]


async def test_a_script_that_calls_a_compiled_plan_hears_of_it_too(api, bad_directory, bad_log_dir):
    with pytest.raises(ExecutionError) as raised:
        await compile_plan(lost_script_plan())()
    assert raised.value.result.results[1].error.endswith(f"/{SHOWN}/script.sh")


async def test_the_log_record_that_points_to_the_rest_of_the_output_is_text(
    api, bad_log_dir, monkeypatch
):
    monkeypatch.setenv("CLOUDOPS_MAX_API_LOG_BYTES", "10")
    async with ExecutionEngine() as engine:
        execution_id = await engine.execute(shell("seq 100"))
        assert (await engine.wait(execution_id, timeout=60)).status == "completed"
    async with get_client() as client:

        async def pointing():
            logs = await client.read_logs(LogFilter(flow_run_id={"any_": [execution_id]}))
            return [log for log in logs if "l\N{REPLACEMENT CHARACTER}g/" in log.message]

        await until(pointing)


def test_commands_get_the_true_bytes_of_directory_and_environment(
    prefect_api, bad_directory, bad_log_dir
):
    env = os.environ | {"PREFECT_API_URL": prefect_api, "ODD": os.fsdecode(b"\xfe\xff")}
    line = (
        "printf '%s' \"$ODD\"; basename \"$(pwd)\" | tr -d '\\n'; basename \"$PWD\" | tr -d '\\n'"
    )
    done = subprocess.run([*CALLED, "shell", "-q", line], env=env, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    result = subprocess.run(
        [*CALLED, "shell", "--json", f"exec > out; {line}"], env=env, timeout=120, text=True
    )
    assert result.returncode == 0
    assert (bad_directory / "out").read_bytes() == b"\xfe\xff" + b"d\xe9" * 2


def test_the_command_line_ends_where_names_are_not_utf8(prefect_api, bad_directory, bad_log_dir):
    cloudops = Cloudops(prefect_api, bad_log_dir)
    ran = cloudops("run", "plan.yaml")
    assert ran.returncode == 1
    assert "[removes]  64 e9 0a" in ran.stdout
    assert f"Script file not found: {bad_directory.parent}/{SHOWN}/script.sh" in ran.stdout
    assert f"log: {bad_directory.parent}/l\N{REPLACEMENT CHARACTER}g/" in ran.stdout
    (bad_directory / "script.sh").write_text("true\n")
    result = cloudops.json("run", "plan.yaml")
    assert result["results"][1]["error"].endswith(f"/{SHOWN}/script.sh")
    assert cloudops.json("result", result["execution_id"]) == result
    (newest, *_) = cloudops.json("list")
    assert newest["id"] == result["execution_id"]


def test_the_command_line_tells_of_files_whose_names_are_not_utf8(bad_directory, monkeypatch):
    assert run_captured("validate", "plan.yaml").returncode == 0
    for name in (BAD, f"{BAD}.yaml"):
        refused = run_captured("validate", "--json", f"{name}/none.yaml")
        assert refused.returncode == 2
        assert f"{name}/none.yaml".replace(BAD, SHOWN) in json.loads(refused.stdout)["error"]
    assert run_captured("init", f"{BAD}.yaml").returncode == 0
    written = (bad_directory / f"{BAD}.yaml").read_text()
    assert r"cloudops run $'d\xe9.yaml' " in written
    valid = run_captured("validate", f"{BAD}.yaml")
    assert (valid.returncode, valid.stdout[:9]) == (0, f"{SHOWN}.yaml: ")
    (bad_directory / f"{BAD}.yaml").write_text("commands:\n  - rum: x\n")
    wrong = run_captured("validate", "--json", f"{BAD}.yaml")
    assert json.loads(wrong.stdout)["mistakes"][0]["file"] == f"{SHOWN}.yaml"
    drawn = run_captured("graph", "plan.yaml", "--output", f"{BAD}.mmd")
    assert (drawn.returncode, drawn.stderr) == (0, f"Wrote {SHOWN}.mmd\n")
    assert (bad_directory / f"{BAD}.mmd").exists()
    dry = json.loads(run_captured("run", "--dry-run", "--json", "plan.yaml").stdout)
    assert dry["commands"][0]["working_dir"] == f"{bad_directory.parent}/{SHOWN}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--search", BAD],
        ["list", "--json", "--tag", f"a={BAD}"],
        ["deploy", "plan.yaml", "--name", "name", "--work-pool", BAD],
        ["exec", "--", "cat", BAD],
        ["shell", "--cwd", BAD, "true"],
        ["shell", "--env", f"A={BAD}", "true"],
    ],
)
def test_an_argument_that_is_not_utf8_is_named(arguments, prefect_api, bad_directory, tmp_path):
    done = Cloudops(prefect_api, tmp_path / "logs")(*arguments)
    assert done.returncode == 2
    assert r"d\xe9'" in (done.stdout + done.stderr).replace("\\\\", "\\")
    assert len((done.stdout + done.stderr).splitlines()) == 1


def test_a_name_that_is_not_utf8_is_shown(prefect_api, tmp_path):
    cloudops = Cloudops(prefect_api, tmp_path / "logs")
    result = cloudops.json("shell", "--name", BAD, "--tag", f"a={BAD}", "true")
    assert result["status"] == "completed"
    assert cloudops.json("list", "--limit", 1)[0]["name"] == SHOWN
