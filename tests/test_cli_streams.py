"""`cloudops` where its standard streams are closed, full, or broken."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cloudops_prefect.cli.standard_streams import LastingFile

CALLED = [sys.executable, "-m", "cloudops_prefect"]
PLAN = """\
commands:
  - name: printing
    run: echo printed; echo complaint >&2
  - name: proving
    run: readlink /proc/self/fd/0 > stdin; echo ran >> ran
"""
CLOSED = {
    "stdin": "<&-",
    "stdout": ">&-",
    "stderr": "2>&-",
    "out and err": ">&- 2>&-",
    "all": "<&- >&- 2>&-",
}
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")


class Called:
    """Starts `cloudops` from a shell that redirects its streams."""

    def __init__(self, api: str, directory: Path) -> None:
        self.directory = directory
        self.env = os.environ | {
            "PREFECT_API_URL": api,
            "CLOUDOPS_LOG_DIR": str(directory / "logs"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }

    def __call__(self, redirection: str, *arguments: str, **variables: str):
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *CALLED, *arguments],
            cwd=self.directory,
            env=self.env | variables,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def json(self, *arguments: str):
        return json.loads(self("", *arguments, "--json").stdout)


@pytest.fixture
def called(prefect_api, tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    return Called(prefect_api, tmp_path)


@pytest.mark.parametrize("redirection", CLOSED.values(), ids=CLOSED)
def test_a_plan_runs_where_streams_are_closed(redirection, called, tmp_path):
    done = called(redirection, "run", "plan.yaml")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert ("2 of 2 commands completed" in done.stdout) == (" >&-" not in f" {redirection}")
    assert (tmp_path / "ran").read_text() == "ran\n"
    if sys.platform == "linux":
        assert (tmp_path / "stdin").read_text() == "/dev/null\n"
    (newest, *_) = called.json("list", "--limit", "1")
    result = called.json("result", newest["id"])
    # No stream of ours has taken the place of a command's, nor of a log.
    assert (result["results"][0]["stdout"], result["results"][0]["stderr"]) == (
        "printed\n",
        "complaint\n",
    )
    log = Path(result["results"][0]["log_path"]).read_text()
    assert sorted(log.splitlines()) == ["complaint", "printed"]


@pytest.mark.parametrize("redirection", CLOSED.values(), ids=CLOSED)
def test_a_command_keeps_its_exit_code_where_streams_are_closed(redirection, called):
    done = called(redirection, "shell", "echo printed; exit 3")
    assert done.returncode == 3
    assert done.stdout == ("" if " >&-" in f" {redirection}" else "printed\n")
    assert bool(done.stderr) == ("2>&-" not in redirection)


def test_every_subcommand_works_where_all_streams_are_closed(called, tmp_path):
    ran = called.json("run", "plan.yaml")
    execution_id, command_id = ran["execution_id"], ran["results"][0]["execution_id"]
    server = {"PREFECT_HOME": str(tmp_path / "home")}
    for code, *arguments in [
        (0, "--help"),
        (0, "--version"),
        (0, "run", "--help"),
        (0, "run", "--dry-run", "plan.yaml"),
        (0, "run", "--json", "plan.yaml"),
        (2, "run", "none.yaml"),
        (0, "resume", execution_id),
        (0, "watch", execution_id),
        (0, "exec", "--", "true"),
        (7, "exec", "--json", "--", "sh", "-c", "exit 7"),
        (0, "aws", "configure", "list"),
        (0, "init", "first.yaml"),
        (0, "validate", "plan.yaml"),
        (2, "validate", "--json", "none.yaml"),
        (0, "schema"),
        (0, "completion", "bash"),
        (0, "graph", "plan.yaml"),
        (0, "graph", "plan.yaml", "--output", "plan.svg"),
        (0, "graph", execution_id),
        (0, "timeline", execution_id),
        (0, "status", execution_id),
        (0, "result", execution_id),
        (0, "result", "--json", command_id),
        (0, "logs", execution_id),
        (0, "logs", "--follow", execution_id),
        (0, "logs", "prune", "--older-than", "30d"),
        (0, "list"),
        (1, "cancel", execution_id),
        (2, "deploy", "plan.yaml", "--name", "nightly", "--work-pool", "none"),
        (1, "server", "status"),
        (2, "nonsense"),
    ]:
        for redirection in ("<&- >&- 2>&-", "<&- >&-"):
            done = called(redirection, *arguments, **server if arguments[0] == "server" else {})
            if arguments[0] == "init":
                (tmp_path / "first.yaml").unlink()
            assert (arguments, done.returncode, done.stdout) == (arguments, code, "")
            assert "Traceback" not in done.stderr, arguments


@FULL
@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_a_plan_runs_where_streams_are_full(redirection, called, tmp_path):
    done = called(redirection, "run", "plan.yaml", PREFECT_LOGGING_LEVEL="DEBUG")
    assert done.returncode == 0
    assert (tmp_path / "ran").exists()
    assert "Traceback" not in done.stdout + done.stderr
    if redirection == ">/dev/full":
        assert "not all could be printed: <stdout>: No space left on device" in done.stderr


@FULL
@pytest.mark.parametrize(
    ("redirection", "code"), [(">/dev/full", 1), ("2>/dev/full", 0), (">/dev/full 2>/dev/full", 1)]
)
@pytest.mark.parametrize("arguments", [("list",), ("list", "--json"), ("validate", "plan.yaml")])
def test_what_is_asked_for_and_could_not_be_printed_is_a_failure(
    arguments, redirection, code, called
):
    done = called(redirection, *arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr


@FULL
def test_a_note_that_is_lost_does_not_change_a_commands_exit_code(called):
    assert called("2>/dev/full", "shell", "true").returncode == 0


@pytest.mark.parametrize("redirection", ["2>&-", "2>&- >&-"])
def test_prefects_own_log_may_go_to_a_closed_stream(redirection, called, tmp_path):
    done = called(redirection, "run", "plan.yaml", PREFECT_LOGGING_LEVEL="DEBUG")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "ran").exists()


def test_readers_of_both_streams_may_leave(called, tmp_path):
    argv = [*CALLED, "run", "plan.yaml"]
    env = called.env | {"PREFECT_LOGGING_LEVEL": "DEBUG"}
    with subprocess.Popen(
        argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        for stream in (running.stdout, running.stderr):
            assert stream is not None
            stream.close()
        assert running.wait(240) == 0
    assert (tmp_path / "ran").exists()


SCRIPT = """\
import asyncio, os, sys
from cloudops_prefect import ConsoleHandler, ExecutionEngine, load_plan

async def main():
    async with ExecutionEngine().with_event_handler(ConsoleHandler()) as engine:
        result = await engine.wait(await engine.execute_plan(load_plan("plan.yaml")))
        sys.exit(0 if result.status == "completed" else 1)

asyncio.run(main())
"""


@pytest.mark.parametrize("redirection", ["2>&-", "<&- >&- 2>&-"])
def test_an_engine_runs_plans_where_streams_are_closed(redirection, called, tmp_path):
    script = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        script, cwd=tmp_path, env=called.env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0
    assert (tmp_path / "ran").exists()


def test_a_stream_that_takes_nothing_at_the_moment_is_waited_for():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = b"x" * (1 << 21)
    read = bytearray()

    def read_all() -> None:
        while chunk := os.read(reading, 65536):
            read.extend(chunk)

    reader = threading.Thread(target=read_all)
    file = LastingFile(writing, "<pipe>")
    left = memoryview(data)
    left = left[file.write(left) :]
    assert left
    reader.start()
    while left:
        left = left[file.write(left) :]
    os.close(writing)
    reader.join(30)
    os.close(reading)
    assert read == data
    assert file.loss is None


def test_a_loss_is_told_and_a_reader_that_has_left_is_none():
    reading, writing = os.pipe()
    os.close(reading)
    pipe = LastingFile(writing, "<pipe>")
    assert (pipe.write(b"four"), pipe.loss) == (4, None)
    os.close(writing)
    readable = os.open(os.devnull, os.O_RDONLY)
    file = LastingFile(readable, "<file>")
    assert (file.write(b"four"), file.loss) == (4, os.strerror(errno.EBADF))
    os.close(readable)
