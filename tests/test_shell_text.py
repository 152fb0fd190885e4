"""Shell text of any length does what the same text does as an argument."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import anyio
import psutil
import pytest
from running import soon

from cloudops_prefect.argument_limits import MAX_STRING_BYTES
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import InvalidCommandError
from cloudops_prefect.execution import CommandExecution
from cloudops_prefect.models import ExecutionRequest, ShellCommand
from cloudops_prefect.shell_text import HAS_MEMORY_FILES, can_be_long, text_in_memory

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not HAS_MEMORY_FILES, reason="the system has no files without a name"),
]
LONG = 162_000
HAS_FISH = pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
HAS_ZSH = pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
SHELLS = ["bash", "sh", pytest.param("zsh", marks=HAS_ZSH)]


def lengthened(text: str, size: int = LONG) -> str:
    """A text that does the same and is long, because a command without effect comes first."""
    return f": {'x' * size}\n{text}"


def command(text: str, shell: str = "bash") -> ExecutionRequest:
    return ExecutionRequest(command=ShellCommand(command=text, shell=shell))


@pytest.fixture
def config(tmp_path):
    return ExecutionConfig(log_dir=tmp_path / "logs", grace_period_ms=500)


async def ran(request, config):
    request.validate()
    execution = CommandExecution(request, uuid4(), config)
    await execution.run()
    return execution.result_with_output()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "text",
    [
        'echo "$0|$#|$@|$?"; exit 3',
        'echo out; echo err >&2; read line; echo "[$line]"; cat',
        "set -eu\necho before\nfalse\necho after",
        "no-such-program\necho $LINENO",
        "if true",
        "echo 'never ends",
        "cat <<END\n  $((1 + 1)) \"'\\$x\\\\\nEND\n",
        "trap 'echo bye' EXIT; exit 4",
        "exec sh -c 'exit 7'",
        "kill -KILL $$",
        "f() { return 5; }; f",
        "echo a \\\n",
        "echo a \\",
        "echo ü; env | grep -c text; set | grep -c '^__'\n\n\n",
        "ls /proc/self/fd | wc -l",
    ],
)
async def test_a_long_text_does_what_a_short_one_does(shell, text, config):
    short = await ran(command(lengthened(text, 10), shell), config)
    long = await ran(command(lengthened(text), shell), config)
    assert (long.status, long.exit_code, long.stdout, long.error) == (
        short.status,
        short.exit_code,
        short.stdout,
        short.error,
    )
    assert bool(long.stderr) == bool(short.stderr)


@HAS_FISH
@pytest.mark.parametrize(
    "text",
    [
        "echo $argv; exit 3",
        'read line; echo "[$line]"',
        "set x 1\nfunction f; echo hi $x; end\nf\n",
        "echo a \\\n",
        "no-such-program",
        "ls /proc/self/fd | wc -l",
    ],
)
async def test_fish_is_given_long_texts_too(text, config):
    await test_a_long_text_does_what_a_short_one_does("fish", text, config)


@pytest.mark.parametrize("size", [MAX_STRING_BYTES, MAX_STRING_BYTES + 1])
async def test_no_length_is_too_long(size, config):
    end = "\necho done"
    text = lengthened(end, size - len(lengthened(end, 0)))
    assert len(text) == size
    assert (await ran(command(text), config)).stdout == "done\n"


async def test_a_long_text_is_not_seen_and_not_left_behind(config, tmp_path):
    marker = uuid4().hex
    gate = tmp_path / "gate"
    text = f"echo $$; : {marker}; until test -e {gate}; do sleep 0.02; done"
    execution = CommandExecution(command(lengthened(text)), uuid4(), config)

    async def look():
        await soon(lambda: execution.log is not None and execution.log_path.read_bytes())
        assert has_memory_file(os.getpid())
        assert not [one for one in psutil.process_iter() if _shows(one, marker)]
        gate.touch()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        await execution.run()
    assert execution.result_with_output().status == "completed"
    assert not has_memory_file(os.getpid())


def _shows(process: psutil.Process, marker: str) -> bool:
    """Whether a process has the text in its command line or environment, or inherits its file."""
    try:
        directory = Path(f"/proc/{process.pid}")
        parts = [(directory / name).read_bytes() for name in ("cmdline", "environ")]
        has_file = process.pid != os.getpid() and has_memory_file(process.pid)
    except OSError:
        return False
    return has_file or any(marker.encode() in part for part in parts)


def has_memory_file(pid: int) -> bool:
    for file in Path(f"/proc/{pid}/fd").iterdir():
        # The directory that is listed here is among them, and soon closed.
        with suppress(FileNotFoundError):
            if "cloudops-shell-text" in str(file.readlink()):
                return True
    return False


@pytest.mark.parametrize("shell", [*SHELLS, pytest.param("fish", marks=HAS_FISH)])
def test_a_text_that_cant_be_read_is_a_failure(shell):
    with text_in_memory(shell, "true") as loader:
        unreadable = loader.replace("/fd/", "/fd/987")
        done = subprocess.run([shell, "-c", unreadable], capture_output=True, text=True)
    assert done.returncode == 126


async def test_two_long_texts_at_once_are_two(config):
    results = {}

    async def run(number):
        text = lengthened(f"sleep 0.05; echo {number}")
        results[number] = (await ran(command(text), config)).stdout

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(run, number)
    assert results == {number: f"{number}\n" for number in range(8)}


@pytest.mark.parametrize(
    ("shell", "can"),
    [("bash", True), ("/opt/bash-5.2", True), ("ksh93", True), ("pwsh", False), ("rbash", False)],
)
def test_shells_are_known_by_their_names(shell, can):
    assert can_be_long(shell) is can
    text = command(lengthened("true"), shell)
    if can:
        text.validate()
    else:
        with pytest.raises(InvalidCommandError, match="can read it from a script file"):
            text.validate()
