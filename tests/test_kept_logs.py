"""What was printed, told again: from its file or the API, whole or from a certain try on."""

import os
import subprocess
import sys
from datetime import timedelta
from uuid import uuid4

import pytest
from engines import shell
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.states import Completed, Running

from cloudops_prefect import ExecutionConfig, ExecutionEngine, ExecutionStatus, sources, unrecorded
from cloudops_prefect.cli.app import run_tokens
from cloudops_prefect.cli.pruning import prune_logs
from cloudops_prefect.flows import run_command, run_plan
from cloudops_prefect.logfiles import is_here
from cloudops_prefect.output import OutputLog
from cloudops_prefect.tasks import run_shell

pytestmark = [pytest.mark.anyio, pytest.mark.server]
PRINTED = "one\r\n10%\r20%\rdone\nno newline"
PRINTS = r"printf 'one\r\n10%%\r20%%\rdone\nno newline'"


async def lines_of(events) -> list[str]:
    return [event.line async for event in events if event.event_type in {"stdout", "stderr"}]


async def api_logs(flow_run_id) -> list[str]:
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    async with get_client() as client:
        return [log.message for log in await client.read_logs(wanted)]


async def test_the_ends_of_lines_stay_what_they_are(api, config):
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(shell(PRINTS))
        await engine.wait(execution_id)
        assert await engine.read_logs(execution_id) == PRINTED


def test_logs_are_printed_byte_by_byte(api, config, monkeypatch, capfdbinary):
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(config.log_dir))
    assert run_tokens(["shell", "--quiet", PRINTS + r"; printf '\377'"]) == 0
    (log,) = config.log_dir.glob("*.log")
    capfdbinary.readouterr()
    assert run_tokens(["logs", log.stem]) == 0
    assert capfdbinary.readouterr().out == PRINTED.encode() + b"\xff\n"


async def test_output_that_is_not_streamed_is_in_the_log_and_the_result(api, tmp_path):
    config = ExecutionConfig(log_dir=tmp_path / "logs", stream_output=False)
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(shell("printf 'o%s\\n' ut; printf 'e%s\\n' rr >&2"))
        assert await lines_of(engine.stream(execution_id)) == []
        result = await engine.wait(execution_id)
        assert (result.stdout, result.stderr) == ("out\n", "err\n")
        assert sorted((await engine.read_logs(execution_id)).split()) == ["err", "out"]
    shown = "\n".join(await api_logs(execution_id))
    assert "out" not in shown.split()
    assert "err" not in shown.split()


async def test_a_second_try_streams_what_it_prints_itself(api, config, tmp_path):
    flag = tmp_path / "flag"
    request = shell(
        f"if test -e {flag}; then echo second; else echo first; touch {flag}; exit 3; fi"
    )
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(request)
        assert await lines_of(engine.stream(execution_id)) == ["first"]
        await engine.wait(execution_id)
        await engine.resume(execution_id)
        assert await lines_of(engine.stream(execution_id)) == ["second"]
        result = await engine.wait(execution_id)
        assert (result.status, result.stdout) == (ExecutionStatus.COMPLETED, "second\n")
        assert await engine.read_logs(execution_id) == "first\nsecond\n"


async def test_elsewhere_a_stream_says_that_the_api_has_no_more(api, tmp_path):
    config = ExecutionConfig(log_dir=tmp_path / "logs", max_api_log_bytes=20)
    async with ExecutionEngine(config) as engine:
        execution_id = await engine.execute(shell("seq 1 100"))
        await engine.wait(execution_id)
        path = engine.get_log_path(execution_id)
    async with ExecutionEngine(ExecutionConfig(log_dir=tmp_path / "elsewhere")) as other:
        *lines, note = [event async for event in other.stream(execution_id)][1:-1]
    assert [event.line for event in lines] == [*map(str, range(1, 10))]
    assert (note.event_type, str(path) in note.line) == ("stderr", True)


async def test_all_commands_that_run_elsewhere_are_known(api, monkeypatch):
    monkeypatch.setattr(unrecorded, "TASK_RUN_PAGE_SIZE", 2)
    async with get_client() as client:
        flow_run = await client.create_flow_run(run_plan, state=Running())
        running = {
            (
                await client.create_task_run(
                    run_shell, flow_run.id, dynamic_key=str(index), state=Running()
                )
            ).id
            for index in range(5)
        }
        assert {*await sources._read_running(client, flow_run.id)} == running


def test_a_log_of_another_user_is_not_here(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    path = tmp_path / "logs" / f"{uuid4()}.log"
    OutputLog.open(path, max_output_bytes=1000).close()
    assert is_here(path)
    tmp_path.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; from cloudops_prefect.logfiles import is_here;"
        "os.setuid(65534); print(is_here(Path(sys.argv[1])))"
    )
    argv = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(argv, capture_output=True, text=True).stdout == "False\n"
    assert not is_here(path.with_suffix(".absent"))


async def test_logs_of_what_the_api_calls_running_are_not_pruned(api, config, monkeypatch, capsys):
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(config.log_dir))
    async with get_client() as client:
        flow_run = await client.create_flow_run(run_command, state=Running())
        plan_run = await client.create_flow_run(run_plan, state=Running())
        ended = await client.create_task_run(run_shell, plan_run.id, "0", state=Completed())
    running, command, unknown = map(config.log_path, (flow_run.id, ended.id, uuid4()))
    for path in (running, command, unknown):
        OutputLog.open(path, max_output_bytes=1000).close()
        for file in (path, path.with_suffix(".idx")):
            os.utime(file, (0, 0))
    assert await prune_logs(timedelta(days=30), keep_failed=False, json=True) == 0
    assert running.exists()
    assert command.exists(), "it is a part of a plan that runs"
    assert not unknown.exists()
    assert str(flow_run.id) in capsys.readouterr().out
