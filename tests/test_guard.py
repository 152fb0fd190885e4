import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
import pytest
from running import (
    PROGRAMS,
    PROJECT,
    SEES_NO_STRANGERS,
    Running,
    guards_of,
    is_locked,
    processes,
    program,
    soon,
)
from scaling import cpu_seconds

from cloudops_prefect import guard
from cloudops_prefect.kernel import this_kernel

pytestmark = pytest.mark.anyio

COMMANDS = {
    "sleeps": ["bash", "-c", "echo ready; exec sleep 60"],
    "background and foreground child": ["bash", "-c", "sleep 60 & echo ready; sleep 60; :"],
    "ignores sigterm": program("ignores_sigterm"),
    "double fork": program("double_fork"),
    "silent double fork": program("double_fork", "silent"),
    "floods": program("floods"),
    "is stopped": ["bash", "-c", "sleep 60 & kill -STOP $!; echo ready; kill -STOP $$"],
}
BOUND = 20
"""Seconds: what nobody stops lives for 60. How long a stop takes is for the benchmark."""


class Flow:
    """A process of its own that runs commands through the package."""

    def __init__(self, mark: str, *commands: list[str], prefix: Sequence[str] = ()) -> None:
        self.mark = mark
        runner = [sys.executable, str(PROGRAMS / "runs_commands.py")]
        self.process = subprocess.Popen(
            [*prefix, *runner, *map(json.dumps, commands)],
            env={**os.environ, "PYTHONPATH": str(PROJECT), "CLOUDOPS_TEST_MARK": mark},
            stdout=subprocess.PIPE,
        )

    def until_printed(self, text: bytes, times: int = 1) -> None:
        """Wait until the commands have printed `text` so many times."""
        seen = b""
        while seen.count(text) < times:
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, "the flow has ended"
            seen += chunk

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.process.stdout.close()
        if self.process.poll() is None:
            self.kill()


@pytest.fixture
async def flow(anyio_backend):
    flows = []

    def start(*commands: list[str], prefix: Sequence[str] = ()) -> Flow:
        flows.append(Flow(uuid.uuid4().hex, *commands, prefix=prefix))
        return flows[-1]

    yield start
    for each in flows:
        each.close()
        await soon(lambda each=each: processes(each.mark) == [])
        await soon(lambda each=each: guards_of(each.process.pid) == [])


class TestAKilledFlow:
    @pytest.mark.parametrize("argv", COMMANDS.values(), ids=COMMANDS)
    async def test_leaves_nothing_running(self, flow, argv):
        killed = flow(argv)
        killed.until_printed(b"ready")
        assert processes(killed.mark)
        killed.kill()
        await soon(lambda: processes(killed.mark) == [], seconds=BOUND)

    async def test_leaves_none_of_fifty_commands_running(self, flow):
        killed = flow(*[COMMANDS["background and foreground child"]] * 50)
        killed.until_printed(b"ready", times=50)
        killed.kill()
        await soon(lambda: processes(killed.mark) == [], seconds=BOUND)

    @pytest.mark.parametrize(
        ("whose", "prefix"),
        [
            ("", []),
            pytest.param(
                "stranger",
                SEES_NO_STRANGERS,
                marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user"),
            ),
        ],
        ids=["own", "another user's"],
    )
    async def test_leaves_no_process_without_environment_session_or_parent(
        self, flow, whose, prefix
    ):
        if this_kernel().stamp(os.getpid()):
            pytest.skip("this process is a command's itself: its commands keep the outer stamp")
        mark = uuid.uuid4().hex
        killed = flow(program("double_fork", "bare", whose, mark), prefix=prefix)
        killed.until_printed(b"ready")
        assert len(processes(mark)) == 2
        killed.kill()
        await soon(lambda: processes(mark) == [], seconds=BOUND)

    async def test_leaves_nothing_of_what_never_stays_in_one_process(self, flow, tmp_path):
        lock = tmp_path / "lock"
        killed = flow(["bash", "-c", '"$@"; sleep 60', "bash", *program("never_stays", str(lock))])
        killed.until_printed(b"ready")
        assert is_locked(lock)
        killed.kill()
        # What is always a millisecond ahead is caught late where many others want the cores.
        await soon(lambda: not is_locked(lock), seconds=10 * BOUND)

    async def test_killed_while_it_starts_commands_leaves_nothing(self, flow):
        for delay in range(5):
            killed = flow(*[["sleep", "60"]] * 100)
            killed.until_printed(b"pid", times=1 + 15 * delay)
            killed.kill()
            await soon(lambda killed=killed: processes(killed.mark) == [], seconds=BOUND)

    async def test_leaves_none_of_the_commands_of_a_flow_that_it_runs(self, flow):
        inner = json.dumps(["bash", "-c", "echo ready; sleep 60; :"])
        killed = flow([sys.executable, str(PROGRAMS / "runs_commands.py"), inner])
        killed.until_printed(b"ready")
        await soon(lambda: len(processes(killed.mark)) == 4)
        killed.kill()
        await soon(lambda: processes(killed.mark) == [], seconds=BOUND)

    async def test_leaves_other_flows_alone(self, flow):
        killed, other = flow(["sleep", "60"]), flow(COMMANDS["sleeps"])
        killed.until_printed(b"pid")
        other.until_printed(b"ready")
        killed.kill()
        await soon(lambda: guards_of(killed.process.pid) == [])
        assert len(processes(other.mark)) == 2

    async def test_may_have_forked_a_child_that_lives_on(self, flow, tmp_path):
        script = tmp_path / "forks.py"
        script.write_text(
            "import os, runpy, sys\n"
            "from cloudops_prefect import guard\n"
            "guard.ensure()\n"
            "if os.fork() == 0:\n"
            "    import signal; signal.alarm(60); print('forked', flush=True); signal.pause()\n"
            f'sys.argv[1:] = [\'["sleep", "61"]\']\n'
            f"runpy.run_path({str(PROGRAMS / 'runs_commands.py')!r})\n"
        )
        mark = uuid.uuid4().hex
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONPATH": str(PROJECT), "CLOUDOPS_TEST_MARK": mark},
            stdout=subprocess.PIPE,
        )
        printed = b""
        while b"pid" not in printed or b"forked" not in printed:
            printed += os.read(process.stdout.fileno(), 4096)
        process.kill()
        process.wait()
        process.stdout.close()
        await soon(lambda: len(processes(mark)) == 1, seconds=BOUND)
        [forked] = processes(mark)
        assert "forks.py" in " ".join(forked.cmdline())
        await soon(lambda: guards_of(process.pid) == [], seconds=BOUND)
        forked.kill()
        await soon(lambda: processes(mark) == [])

    async def test_leaves_nothing_that_was_between_fork_and_exec(self, tmp_path):
        mark, leave = uuid.uuid4().hex, tmp_path / "leave"
        code = (
            "import ctypes, os, signal, sys, time\n"
            "from cloudops_prefect import guard\n"
            "from cloudops_prefect.process_tree import MARK_VARIABLE, marked\n"
            "env = {**os.environ, MARK_VARIABLE: marked(guard.ensure() + '.1')}\n"
            # Nothing that Python does at a fork: the child has the pipe, as before any exec.
            "if ctypes.PyDLL(None).fork() == 0:\n"
            "    while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
            "    os.execve('/bin/sleep', ['sleep', '60'], env)\n"
            "print('forked', flush=True); signal.pause()"
        )
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", code, str(leave)],
            env={**os.environ, "PYTHONPATH": str(PROJECT), "CLOUDOPS_TEST_MARK": mark},
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"forked\n"
        process.stdout.close()
        process.kill()
        process.wait()
        killed = anyio.current_time()
        await soon(lambda: not guards_of(process.pid) or anyio.current_time() > killed + 1)
        leave.touch()
        await soon(lambda: processes(mark) == [], seconds=BOUND)
        await soon(lambda: guards_of(process.pid) == [], seconds=BOUND)


class TestTheGuard:
    async def test_ends_with_a_flow_that_ends(self, flow):
        ended = flow(["true"])
        ended.until_printed(b"all ended")
        assert ended.process.wait(10) == 0
        await soon(lambda: guards_of(ended.process.pid) == [], seconds=BOUND)

    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    async def test_ignores_what_is_meant_for_others(self, flow, signum):
        guarded = flow(COMMANDS["sleeps"])
        guarded.until_printed(b"ready")
        [process] = guards_of(guarded.process.pid)
        await soon(lambda: _ignores(process.pid, signum))
        process.send_signal(signum)
        guarded.kill()
        await soon(lambda: processes(guarded.mark) == [], seconds=BOUND)

    async def test_is_replaced_when_it_was_killed(self):
        await Running("first").run(["true"])
        [first] = guards_of(os.getpid())
        first.kill()
        await soon(lambda: first.status() == psutil.STATUS_ZOMBIE)
        await Running("second").run(["true"])
        [second] = guards_of(os.getpid())
        assert first.pid != second.pid

    async def test_there_is_one_however_many_commands_run(self):
        running = Running("many")
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(running.run, ["true"])
        assert len(guards_of(os.getpid())) == 1

    async def test_keeps_nothing_open_and_has_a_session_of_its_own(self):
        await Running("any").run(["true"])
        [process] = guards_of(os.getpid())
        await soon(lambda: _ignores(process.pid, signal.SIGTERM))
        assert os.getsid(process.pid) == process.pid
        assert process.cwd() == "/"
        assert set(process.environ()) == {"CLOUDOPS_GUARD"}
        opened = {link for fd, link in _open_files(process.pid) if fd in {1, 2}}
        assert opened == {"/dev/null"}
        others = {link for fd, link in _open_files(process.pid) if fd > 2}
        assert others <= {"anon_inode:[pidfd]", "anon_inode:[eventpoll]"}

    async def test_is_not_told_of_by_a_command(self):
        """A command that had the pipe's end would keep the guard waiting."""
        await Running("any").run(["true"])
        running = Running("fds")
        await running.run(["sh", "-c", "ls -l /proc/self/fd"])
        assert running.stdout.count(b"pipe:") == 2

    async def test_starts_without_site_packages_and_imports_little(self):
        mark = guard.ensure()
        argv = [sys.executable, "-I", "-S", "-X", "importtime", guard.guard_process.__file__]
        done = subprocess.run(  # noqa: ASYNC221
            [*argv, mark, "1"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
        assert "psutil" not in done.stderr
        assert "asyncio" not in done.stderr
        assert "cloudops_prefect.process_tree" in done.stderr

    def test_no_warning_is_given_at_the_end(self):
        code = (
            "import asyncio, math, os; from cloudops_prefect.process import *\n"
            "async def main():\n"
            # asyncio's debug mode would report callbacks that take long on a busy machine.
            "    asyncio.get_running_loop().slow_callback_duration = math.inf\n"
            "    await run_process(['true'], env=os.environ, cwd=None, on_output=print,"
            "    stop=StopRequest(), timeout=None, grace_period=1)\n"
            "asyncio.run(main())"
        )
        argv = [sys.executable, "-W", "error", "-X", "dev", "-c", code]
        done = subprocess.run(argv, capture_output=True, cwd=PROJECT, check=False)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_costs_next_to_nothing_once_it_runs(self):
        guard.ensure()
        start = cpu_seconds(lambda: subprocess.run(["true"], check=True))
        assert cpu_seconds(guard.ensure) < start / 10


def last_arguments(mark: str) -> list[str]:
    """The last argument of each process that has the mark."""
    arguments = []
    for process in processes(mark):
        with suppress(psutil.Error):
            arguments.extend(process.cmdline()[-1:])
    return arguments


def _open_files(pid: int) -> list[tuple[int, str]]:
    return [(int(fd.name), str(fd.readlink())) for fd in Path(f"/proc/{pid}/fd").iterdir()]


def _ignores(pid: int, signum: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored.split()[1], 16) >> (signum - 1) & 1)


def test_an_exec_of_the_flow_counts_as_its_end(tmp_path):
    """The process lives on under its pid, but nobody is left who would stop its commands."""
    mark = uuid.uuid4().hex
    code = (
        "import asyncio, os; from cloudops_prefect.process import *\n"
        "def execute(pid): os.execvp('sleep', ['sleep', '62'])\n"
        "asyncio.run(run_process(['sleep', '63'], env=os.environ, cwd=None, on_output=print,\n"
        "    stop=StopRequest(), timeout=None, grace_period=1, on_started=execute))"
    )
    env = {**os.environ, "CLOUDOPS_TEST_MARK": mark, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=env)
    try:
        # The command carries a mark, what the flow has become doesn't.
        asyncio.run(soon(lambda: last_arguments(mark) == ["62"]))
    finally:
        process.kill()
        process.wait()
