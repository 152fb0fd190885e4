"""One request from its checks to its result, with real processes and real files."""

import base64
import logging
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import anyio
import pytest
from running import MARK, processes, soon

from cloudops_prefect import process
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.env_secrets import secret_values
from cloudops_prefect.errors import InvalidWorkingDirError, SpawnFailedError
from cloudops_prefect.execution import CommandExecution, check_paths
from cloudops_prefect.models import (
    ExecCommand,
    ExecutionRequest,
    ExecutionStatus,
    ScriptCommand,
    ShellCommand,
)
from cloudops_prefect.output import read_lines

pytestmark = pytest.mark.anyio

MASK = "********"
OUT_OF_MEMORY = "the machine's memory may have run out"
PASSWORD = "hunter2/with+more?"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def config(tmp_path):
    return ExecutionConfig(log_dir=tmp_path / "logs", grace_period_ms=500)


@pytest.fixture
def mark():
    return uuid4().hex


def shell(command, **fields):
    return ExecutionRequest(command=ShellCommand(command=command), **fields)


def python(code, **fields):
    argv = ["-ISc", code]
    return ExecutionRequest(command=ExecCommand(program=sys.executable, args=argv), **fields)


def prepared(request, config, **fields):
    return CommandExecution(request, uuid4(), config, **fields)


async def ran(request, config, **fields):
    execution = prepared(request, config, **fields)
    await execution.run()
    return execution.result_with_output()


async def printed(execution, text):
    await soon(lambda: execution.log is not None and text in execution.log_path.read_bytes())


# How a command can end


@pytest.mark.parametrize(
    ("command", "status", "exit_code", "error"),
    [
        ("echo out; echo err >&2", "completed", 0, None),
        ("echo out; echo err >&2; exit 3", "failed", 3, "Command failed with exit code 3"),
        (
            "echo out; echo err >&2; kill -TERM $$",
            "failed",
            -15,
            "Command failed with exit code -15: killed by SIGTERM",
        ),
        (
            "echo out; echo err >&2; kill -KILL $$",
            "failed",
            -9,
            f"Command failed with exit code -9: killed by SIGKILL: {OUT_OF_MEMORY}",
        ),
    ],
)
async def test_a_command_that_ends_by_itself(config, command, status, exit_code, error):
    request = shell(command)
    execution = prepared(request, config)
    without_output = await execution.run()
    assert (without_output.stdout, without_output.stderr) == ("", "")
    result = execution.result_with_output()
    assert (result.status, result.exit_code, result.error) == (status, exit_code, error)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert (result.id, result.execution_id) == (request.id, execution.execution_id)
    assert result.log_path == config.log_path(execution.execution_id)
    assert result.completed_at - result.started_at == result.duration
    assert sorted(result.log_path.read_bytes().split()) == [b"err", b"out"]


async def test_a_program_finds_its_own_directory_in_pwd(config, tmp_path, monkeypatch):
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("OLDPWD", str(tmp_path))
    makefile = tmp_path / "pwd.mk"
    makefile.write_text("all:\n\t@echo $(PWD) $(CURDIR) $(OLDPWD)\n")
    command = ExecCommand(program="make", args=["-f", str(makefile)])
    result = await ran(ExecutionRequest(command=command, working_dir=Path("/usr")), config)
    assert (result.stdout, result.stderr) == ("/usr /usr\n", "")


async def test_a_command_that_takes_too_long(config, mark):
    request = shell("echo before; sleep 60", timeout_ms=3000, env={MARK: mark})
    result = await ran(request, config)
    assert (result.status, result.exit_code) == (ExecutionStatus.TIMEOUT, -signal.SIGTERM)
    assert (result.error, result.stdout) == ("Execution timeout after 3000ms", "before\n")
    assert processes(mark) == []


async def test_a_command_without_a_timeout_of_its_own_has_the_default(config):
    config = config.model_copy(update={"default_timeout_ms": 200})
    result = await ran(shell("sleep 60"), config)
    assert result.error == "Execution timeout after 200ms"


async def test_a_command_that_is_cancelled(config, mark):
    execution = prepared(shell("echo before; sleep 60", env={MARK: mark}), config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execution.run)
        await printed(execution, b"before\n")
        execution.stop.request("cancelled")
    result = execution.result_with_output()
    assert (result.status, result.exit_code) == (ExecutionStatus.CANCELLED, -signal.SIGTERM)
    assert (result.error, result.stdout) == ("Execution cancelled", "before\n")
    assert processes(mark) == []


async def test_a_command_that_is_cancelled_before_it_starts_does_not_start(config, tmp_path):
    execution = prepared(shell(f"touch {tmp_path}/started"), config)
    execution.stop.request("cancelled")
    result = await execution.run()
    assert result.status is ExecutionStatus.CANCELLED
    assert not (tmp_path / "started").exists()


# What can't be started


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (
            ExecutionRequest(command=ExecCommand(program="/no/such/program")),
            "Process spawn failed: '/no/such/program': program not found",
        ),
        (
            ExecutionRequest(command=ScriptCommand(path=Path("/no/such/script.sh"))),
            "Script file not found: /no/such/script.sh",
        ),
        (
            shell("true", working_dir=Path("/no/such/directory")),
            "Invalid working directory: /no/such/directory does not exist",
        ),
        (
            shell("true", working_dir=Path("/etc/passwd")),
            "Invalid working directory: /etc/passwd is not a directory",
        ),
        (
            shell("true", output_log_path=Path("/etc/passwd/copy")),
            "IO error: output log /etc/passwd/copy is not below a directory",
        ),
    ],
    ids=["program", "script", "no directory", "a file", "copy"],
)
async def test_what_cannot_be_started_is_a_result(config, request_, error):
    result = await ran(request_, config)
    assert (result.status, result.exit_code) == (ExecutionStatus.FAILED, -1)
    assert result.error is not None
    assert result.error.startswith(error)
    assert (result.stdout, result.stderr) == ("", "")
    assert result.started_at is not None


async def test_paths_are_refused_before_there_is_a_process(tmp_path):
    with pytest.raises(Exception, match="Invalid working directory"):
        check_paths(shell("true", working_dir=tmp_path / "none"))
    check_paths(shell("true", working_dir=tmp_path / "none"), later=True)


async def test_a_path_that_cannot_even_be_looked_at_is_refused(tmp_path):
    directory = tmp_path / ("x" * 300)
    with pytest.raises(InvalidWorkingDirError, match="File name too long"):
        check_paths(shell("true", working_dir=directory))
    check_paths(shell("true", working_dir=directory), later=True)
    script = ScriptCommand(path=directory / "a.sh")
    with pytest.raises(SpawnFailedError, match="File name too long"):
        check_paths(ExecutionRequest(command=script))
    check_paths(ExecutionRequest(command=script), later=True)


async def test_paths_start_in_the_directory_of_the_execution(tmp_path, config):
    (tmp_path / "place/sub").mkdir(parents=True)
    request = shell("pwd", output_log_path=Path("copy.log"))
    place = tmp_path / "place"
    assert (await ran(request, config, directory=place)).stdout == f"{place}\n"
    assert (place / "copy.log").read_text() == f"{place}\n"
    sub = shell("pwd", working_dir=Path("sub"))
    assert (await ran(sub, config, directory=place)).stdout == f"{place}/sub\n"
    absolute = shell("pwd", working_dir=tmp_path)
    assert (await ran(absolute, config, directory=place)).stdout == f"{tmp_path}\n"


async def test_a_directory_of_an_execution_that_is_not_there_fails_it(tmp_path, config):
    result = await ran(shell("pwd"), config, directory=tmp_path / "none")
    assert result.error == f"Invalid working directory: {tmp_path / 'none'} does not exist"


async def test_a_log_directory_that_is_a_file_is_a_clear_error(config):
    config.resolved_log_dir.write_text("")
    result = await ran(shell("true"), config)
    assert result.error == f"IO error: log directory {config.resolved_log_dir} is not a directory"


@needs_root
async def test_a_log_directory_that_somebody_else_planted_is_a_clear_error(config, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    config.resolved_log_dir.symlink_to(tmp_path / "elsewhere")
    os.lchown(config.resolved_log_dir, 65534, 65534)
    result = await ran(shell(f"touch {tmp_path}/started"), config)
    assert result.status is ExecutionStatus.FAILED
    assert result.error is not None
    assert "is a symbolic link that belongs to user" in result.error
    assert "set CLOUDOPS_LOG_DIR to another" in result.error
    assert not any((tmp_path / "elsewhere").iterdir())
    assert not (tmp_path / "started").exists()


# What it prints


async def test_every_byte_is_in_the_log_and_results_are_text(config):
    code = r"import os; os.write(1, b'a\0b\r\nbad \xff\xfe \xe2\x82'); os.write(2, b'no newline')"
    result = await ran(python(code), config)
    assert result.stdout == "a\0b\r\nbad \ufffd\ufffd \ufffd"
    assert result.stderr == "no newline"
    log = result.log_path.read_bytes()
    assert log.replace(b"no newline", b"") == b"a\0b\r\nbad \xff\xfe \xe2\x82"
    lines = {(group.kind, line) for group in read_lines(result.log_path) for line in group.lines}
    assert lines == {
        ("stdout", "a\0b"),
        ("stdout", "bad \ufffd\ufffd \ufffd"),
        ("stderr", "no newline"),
    }


async def test_a_command_that_prints_nothing(config):
    result = await ran(shell("true"), config)
    assert (result.stdout, result.stdout_truncated, result.log_path.read_bytes()) == (
        "",
        False,
        b"",
    )


async def test_ten_thousand_empty_lines_are_ten_thousand(config):
    result = await ran(shell("yes '' | head -n 10000; echo x >&2"), config)
    assert (result.stdout, result.stderr) == ("\n" * 10_000, "x\n")
    lines = [group for group in read_lines(result.log_path) if group.kind == "stdout"]
    assert [line for group in lines for line in group.lines] == [""] * 10_000


async def test_streams_that_take_turns_stay_in_order_and_apart(config):
    # Each waits until what it printed is in the log: two pipes have no order between them.
    execution = prepared(
        shell(
            'for i in 1 2 3 4; do printf "o$i "; until grep -q "o$i" "$LOG"; do :; done;'
            'printf "e$i " >&2; until grep -q "e$i" "$LOG"; do :; done; done'
        ),
        config,
    )
    execution.env = {"LOG": str(execution.log_path)}
    await execution.run()
    result = execution.result_with_output()
    assert result.log_path.read_text() == "o1 e1 o2 e2 o3 e3 o4 e4 "
    assert (result.stdout, result.stderr) == ("o1 o2 o3 o4 ", "e1 e2 e3 e4 ")


async def test_results_keep_the_end_of_each_stream_and_say_so(config):
    config = config.model_copy(update={"max_output_bytes": 1000})
    result = await ran(shell("seq 1 100000; seq 1 10 >&2"), config)
    everything = "".join(f"{n}\n" for n in range(1, 100_001))
    assert (result.stdout, result.stdout_truncated) == (everything[-1000:], True)
    assert (result.stderr, result.stderr_truncated) == (
        "".join(f"{n}\n" for n in range(1, 11)),
        False,
    )
    assert result.log_path.stat().st_size == len(everything) + 21


async def test_the_user_gets_a_second_copy_below_the_directory_of_this_process(
    config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "working").mkdir()
    request = shell(
        "echo out; sleep 60 >/dev/null & disown",
        working_dir=tmp_path / "working",
        output_log_path=Path("mine/copy.log"),
    )
    result = await ran(request, config)
    assert "[cloudops] stopped a process" in result.log_path.read_text()
    assert (tmp_path / "mine/copy.log").read_text() == "out\n"


# Around the end


async def test_what_is_printed_while_it_is_stopped_is_kept(config):
    config = config.model_copy(update={"grace_period_ms": 20_000})
    cleanup = "trap 'echo cleaning; sleep 0.2; echo clean; exit 0' TERM"
    execution = prepared(shell(f"{cleanup}; echo up; sleep 60 & wait"), config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execution.run)
        await printed(execution, b"up\n")
        execution.stop.request("cancelled")
    result = execution.result_with_output()
    assert (result.status, result.exit_code) == (ExecutionStatus.CANCELLED, 0)
    assert result.stdout == "up\ncleaning\nclean\n"


async def test_what_is_printed_after_the_main_process_ended_is_kept(config, monkeypatch):
    # A tenth of a second is much longer on a slow machine.
    for name in ("_SETTLING", "_LONGEST_SETTLING"):
        monkeypatch.setattr(process, name, 25 * getattr(process, name))
    result = await ran(shell("(sleep 0.1; echo late) & echo early"), config)
    assert (result.status, result.stdout) == (ExecutionStatus.COMPLETED, "early\nlate\n")


async def test_a_flood_can_be_stopped_and_its_end_is_there(config, mark):
    execution = prepared(shell("yes flood", env={MARK: mark}), config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execution.run)
        await soon(lambda: execution.log is not None and execution.log_path.stat().st_size > 1e7)
        execution.stop.request("cancelled")
    result = execution.result_with_output()
    assert (result.status, result.stdout_truncated) == (ExecutionStatus.CANCELLED, True)
    assert result.log_path.read_bytes()[-600_000:] == result.stdout.encode()[-600_000:]
    assert processes(mark) == []


# It has its own session, so that it isn't reached along with the main process.
LEFT = "import signal; signal.alarm(60); signal.pause()"
STAYS = f"setsid {sys.executable} -ISc '{LEFT}' "


async def test_a_process_left_in_the_background_is_named_behind_the_output(config):
    # What is printed last might be the beginning of the secret, so that it is held back.
    request = shell(f"{STAYS} & printf tail-")
    result = await ran(request, config, secrets=("tail-of-the-secret",))
    note = "tail-\n[cloudops] stopped a process left in the background: "
    assert result.log_path.read_text().startswith(f"{note}{sys.executable} -ISc import signal;")
    assert (result.status, result.stdout, result.error) == ("completed", "tail-", None)
    times = [group.time for group in read_lines(result.log_path)]
    assert result.started_at <= times[0] <= max(times) <= result.completed_at


@pytest.mark.skipif(
    not hasattr(signal, "pidfd_send_signal"), reason="pidfd_send_signal is a system call of Linux"
)
async def test_a_process_that_cannot_be_stopped_is_told(config, monkeypatch):
    def refuse(*_):
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(signal, "pidfd_send_signal", refuse)
        result = await ran(shell(f"{STAYS} & exit 0"), config)
    assert result.error is not None
    os.kill(int(result.error.rpartition("(pid ")[2].rstrip(")")), signal.SIGKILL)
    assert result.status is ExecutionStatus.COMPLETED
    assert result.error.startswith(f"still running, as another user's process: {sys.executable} -I")
    assert result.log_path.read_text() == f"[cloudops] {result.error}\n"


# Secrets


@pytest.mark.parametrize("where", ["block", "request", "block's variable", "process"])
async def test_a_secret_is_nowhere(config, tmp_path, monkeypatch, where):
    env, fields = {}, {}
    if where == "block":
        fields = {"env": {"HARMLESS": PASSWORD}, "secrets": (PASSWORD,)}
    elif where == "block's variable":
        fields = {"env": {"HARMLESS": PASSWORD, "db_password": PASSWORD}}
    elif where == "request":
        env = {"HARMLESS": PASSWORD, "DB_PASSWORD": PASSWORD}
    else:
        monkeypatch.setenv("HARMLESS", PASSWORD)
        monkeypatch.setenv("DEPLOY_KEY", PASSWORD)
    encoded = base64.b64encode(PASSWORD.encode()).decode()
    command = (
        f'echo "plain $HARMLESS"; echo {encoded} >&2; echo "{quote(PASSWORD, safe="")}"; '
        f'{STAYS} "$HARMLESS" & printf %s "${{HARMLESS:0:6}}"; sleep 0.1; '
        'printf %s "${HARMLESS:6}"'
    )
    request = shell(command, env=env, output_log_path=tmp_path / "copy")
    result = await ran(request, config, **fields)
    assert result.stdout == f"plain {MASK}\n{MASK}\n{MASK}"
    assert result.stderr == f"{MASK}\n"
    log = result.log_path.read_text()
    assert "stopped a process left in the background" in log
    for shown in (log, (tmp_path / "copy").read_text()):
        assert PASSWORD[:5] not in shown
        assert encoded[:5] not in shown
        assert MASK in shown


async def test_a_secret_is_in_no_error_not_even_half(config):
    env = {"API_TOKEN": PASSWORD}
    refused = await ran(
        ExecutionRequest(command=ExecCommand(program=f"./{PASSWORD}"), env=env), config
    )
    assert refused.error == f"Process spawn failed: './{MASK}': program not found"
    # What sleep adds to its minute is next to nothing; the secret begins before the cut and ends
    # behind it.
    padding = "0." + "0" * (74 - len("sleep 60 "))
    env = {"API_TOKEN": "271828182845"}
    told = await ran(shell(f'setsid sleep 60 {padding}"$API_TOKEN" & exit 0', env=env), config)
    assert f"{padding}***…" in told.log_path.read_text()


async def test_a_secret_of_several_lines_is_found_line_by_line(config):
    key = "-----BEGIN KEY-----\n" + "\n".join(f"line {n} of the key" for n in range(5)) + "\n"
    result = await ran(shell('echo "$SSH_KEY" | sed "s/^/> /"', env={"SSH_KEY": key}), config)
    assert result.stdout == "> -----BEGIN KEY-----\n" + f"> {MASK}\n" * 5 + "> \n"


async def test_the_patterns_are_the_configurations(config):
    config = config.model_copy(update={"redact_env": ("PIN_*",)})
    env = {"PIN_CODE": "123456", "API_TOKEN": "visible"}
    assert (await ran(shell("echo $PIN_CODE $API_TOKEN", env=env), config)).stdout == (
        f"{MASK} visible\n"
    )


async def test_a_short_value_is_left_alone_with_one_warning(config, caplog):
    name = f"T{uuid4().hex}_KEY"
    with caplog.at_level(logging.WARNING, "cloudops_prefect"):
        for _ in range(2):
            result = await ran(shell(f"echo ${name}", env={name: "abc"}), config)
    assert result.stdout == "abc\n"
    [warning] = [record.getMessage() for record in caplog.records if name in record.getMessage()]
    assert "abc" not in warning


def test_only_what_is_called_like_a_secret_is_one():
    env = {
        "AWS_SECRET_ACCESS_KEY": "value 1",
        "github_token": "value 2",
        "MY_PASSWORD_FILE": "value 3",
        "SSH_KEY": "value 4",
        "KEYBOARD": "value 5",
        "SSH_KEY_TYPE": "value 6",
        "EMPTY_TOKEN": "",
    }
    found = secret_values(env, ExecutionConfig().redact_env)
    assert list(found) == ["value 1", "value 2", "value 3", "value 4"]
    assert list(secret_values(env, ())) == []


# A full disk


@contextmanager
def files_at_most(size):
    """The disk is full for files of more bytes. What is printed goes into pipes, which are none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_fails_the_logging_and_not_the_command(config, tmp_path):
    request = shell("seq 1 100000; exit 3", output_log_path=tmp_path / "copy")
    with files_at_most(100_000):
        result = await ran(request, config)
    everything = "".join(f"{n}\n" for n in range(1, 100_001))
    lost = len(everything) - 100_000
    losses = "; ".join(
        f"{lost} bytes of output could not be written to {path}: File too large"
        for path in (result.log_path, tmp_path / "copy")
    )
    assert (result.status, result.exit_code) == (ExecutionStatus.FAILED, 3)
    assert result.error == f"Command failed with exit code 3; {losses}"
    assert (result.stdout, result.stdout_truncated) == (everything, False)
    assert result.log_path.read_text() == (tmp_path / "copy").read_text() == everything[:100_000]


async def test_a_disk_that_is_full_before_the_start_stops_no_command(config):
    execution = prepared(shell("echo out; echo err >&2"), config)
    execution.open().close()
    # The next try would have to write where the last one ended, as nothing did.
    execution.log_path.with_suffix(".idx").write_bytes(b"")
    execution.log_path.write_bytes(b"last try")
    execution.log = None
    with files_at_most(0):
        await execution.run()
    result = execution.result_with_output()
    assert (result.status, result.exit_code) == (ExecutionStatus.COMPLETED, 0)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert result.error == (
        f"8 bytes of output could not be written to {result.log_path}: File too large"
    )


@pytest.fixture
def full_disk(tmp_path):
    """A file system without room for a single file."""
    directory = tmp_path / "full"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=1", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only an administrator can mount a file system")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


async def test_files_that_cannot_even_be_made_stop_no_command(full_disk):
    request = shell("echo out", output_log_path=full_disk / "copy")
    result = await ran(request, ExecutionConfig(log_dir=full_disk / "logs"))
    assert (result.status, result.stdout) == (ExecutionStatus.COMPLETED, "out\n")
    assert result.error == "; ".join(
        f"4 bytes of output could not be written to {path}: No space left on device"
        for path in (result.log_path, full_disk / "copy")
    )
