import asyncio
import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from functools import partial
from pathlib import Path
from timeit import repeat

import anyio
import psutil
import pytest
from running import (
    PROGRAMS,
    PROJECT,
    SEES_NO_STRANGERS,
    Running,
    is_locked,
    processes,
    program,
    soon,
)

from cloudops_prefect import process as process_module
from cloudops_prefect import process_tree
from cloudops_prefect.errors import SpawnFailedError
from cloudops_prefect.kernel import this_kernel

pytestmark = pytest.mark.anyio


@pytest.fixture
async def command(anyio_backend):
    running = Running(uuid.uuid4().hex)
    yield running
    # At once, not soon: nothing may be left when run_process has returned.
    left = processes(running.mark)
    for process in left:
        process.kill()
    assert left == []


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").glob("*")))


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until_ready(command: Running, argv, grace_period: float = 0.5, reason="cancelled"):
    """Run, request a stop when the command is ready, and return the outcome and what it took."""
    stopped = 0.0
    async with anyio.create_task_group() as tasks:

        async def stop() -> None:
            nonlocal stopped
            await command.has_printed(b"ready")
            stopped = time.monotonic()
            command.stop.request(reason)

        tasks.start_soon(stop)
        outcome = await command.run(argv, grace_period=grace_period)
    return outcome, time.monotonic() - stopped


SHELL_WITH_CHILDREN = ["bash", "-c", "sleep 60 & echo ready; sleep 60; :"]
ENDS_ON_SIGTERM = {
    "sleeps": ["bash", "-c", "echo ready; exec sleep 60"],
    "background and foreground child": SHELL_WITH_CHILDREN,
    "double fork": program("double_fork"),
    "silent double fork": program("double_fork", "silent"),
    "is stopped": ["bash", "-c", "sleep 60 & kill -STOP $!; echo ready; kill -STOP $$"],
    "floods": program("floods"),
    "forks while it is stopped": program("forks_while_stopped"),
}
IGNORES_SIGTERM = {
    "python": program("ignores_sigterm"),
    "shell": ["bash", "-c", "trap '' TERM; echo ready; while :; do sleep 60; done"],
    "chain of sessions": ["bash", "-c", '"$@"; sleep 60', "bash", *program("never_stays")],
}


class TestEndsByItself:
    async def test_both_streams_and_the_exit_code_are_passed_on(self, command):
        outcome = await command.run(["bash", "-c", "echo out; echo err >&2; exit 3"])
        assert (outcome.returncode, outcome.ended_by, outcome.leftovers) == (3, "exit", ())
        assert command.output == {"stdout": b"out\n", "stderr": b"err\n"}
        assert outcome.started_at <= outcome.ended_at

    async def test_death_by_a_signal_is_a_negative_exit_code(self, command):
        outcome = await command.run(["bash", "-c", "kill -SEGV $$"])
        assert outcome.returncode == -signal.SIGSEGV

    async def test_stdin_is_empty(self, command):
        await command.run(["cat"])
        assert command.stdout == b""

    async def test_the_process_leads_a_session_of_its_own(self, command):
        script = "import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))"
        await command.run([sys.executable, "-Sc", script])
        assert command.stdout == b"True\n"

    async def test_no_file_descriptor_but_the_standard_ones_is_inherited(self, command):
        read_end, write_end = os.pipe()
        os.set_inheritable(write_end, True)
        await command.run(["sh", "-c", "echo /proc/self/fd/*"])
        os.close(read_end)
        os.close(write_end)
        assert {int(path.rpartition(b"/")[2]) for path in command.stdout.split()} <= {0, 1, 2, 3}

    async def test_output_is_complete(self, command):
        script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
        await command.run(["bash", "-c", script])
        assert command.stdout == b"".join(b"line %d\n" % i for i in range(20_000))

    async def test_more_than_a_pipe_holds_is_there_after_the_end(self, command):
        outcome = await command.run(["head", "-c", "30000000", "/dev/zero"])
        assert outcome.returncode == 0
        assert len(command.stdout) == 30_000_000

    async def test_the_working_directory_and_the_environment_are_those_given(
        self, command, tmp_path
    ):
        await command.run(["sh", "-c", "pwd; echo ${CLOUDOPS_TEST_MARK}"], cwd=tmp_path)
        assert command.stdout.decode().split() == [str(tmp_path), command.mark]

    async def test_a_hundred_at_once(self, command):
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(command.run, ["sh", "-c", f"echo {number}"])
        assert sorted(map(int, command.stdout.split())) == list(range(100))

    async def test_it_runs_in_the_loop_of_another_thread(self, command):
        outcomes = []
        thread = threading.Thread(
            target=lambda: outcomes.append(asyncio.run(command.run(["true"])))
        )
        thread.start()
        await soon(lambda: not thread.is_alive())
        assert outcomes[0].returncode == 0

    async def test_file_descriptors_are_not_leaked(self, command):
        await command.run(["true"])
        gc.collect()
        before = open_fds()
        for _ in range(5):
            await command.run(["true"])
            await command.run(["sleep", "60"], timeout=0.01)
            await command.run(program("double_fork", "exit", "silent"))
            with pytest.raises(SpawnFailedError):
                await command.run(["/nonexistent"])
        assert open_fds() == before

    async def test_an_exit_code_that_somebody_else_took_is_not_zero(self, command):
        command._on_output = lambda *_: os.waitpid(command.pid, 0)
        outcome = await command.run(["echo"])
        assert outcome.returncode == 255


class TestIsStopped:
    @pytest.mark.parametrize("argv", ENDS_ON_SIGTERM.values(), ids=ENDS_ON_SIGTERM)
    async def test_what_ends_on_sigterm_is_gone_at_once(self, command, argv):
        outcome, took = await until_ready(command, argv, grace_period=20)
        assert outcome.ended_by == "cancelled"
        assert took < 20

    @pytest.mark.parametrize("argv", IGNORES_SIGTERM.values(), ids=IGNORES_SIGTERM)
    async def test_what_ignores_sigterm_is_gone_after_the_grace_period(self, command, argv):
        outcome, took = await until_ready(command, argv, grace_period=0.3, reason="timeout")
        assert outcome.ended_by == "timeout"
        # By itself the first of them would end after 60 s.
        assert 0.3 <= took < 50

    async def test_what_never_stays_in_one_process_is_gone(self, command, tmp_path):
        lock = tmp_path / "lock"
        chain = ["bash", "-c", '"$@"; sleep 60', "bash", *program("never_stays", str(lock))]
        await until_ready(command, chain, grace_period=0.1)
        assert not is_locked(lock)

    async def test_a_timeout_counts_from_the_start(self, command):
        for timeout in (1, 3, 9, 27):
            outcome = await command.run(SHELL_WITH_CHILDREN, timeout=timeout)
            assert (outcome.ended_by, outcome.returncode) == ("timeout", -signal.SIGTERM)
            # By itself it would end after 60 s.
            assert timeout <= (outcome.ended_at - outcome.started_at).total_seconds() < 50
            # A busy machine may not have begun to run it before the first of them.
            if command.stdout:
                break
        assert command.stdout == b"ready\n"

    async def test_what_is_printed_while_it_is_stopped_is_kept(self, command):
        await until_ready(command, program("floods"), grace_period=5)
        assert command.stdout.endswith(b"the last words")

    async def test_clean_up_that_a_handler_starts_is_left_alone(self, command):
        outcome, _ = await until_ready(command, program("cleans_up"), grace_period=5)
        assert command.stdout.endswith(b"cleaned up\n")
        assert outcome.returncode == 0

    async def test_a_child_without_environment_session_or_parent_is_found(self, command):
        if this_kernel().stamp(os.getpid()):
            pytest.skip("this process is a command's itself: its commands keep the outer stamp")
        await until_ready(command, program("double_fork", "bare", command.mark), grace_period=5)
        assert processes(command.mark) == []

    async def test_fifty_at_once(self, command):
        stop = time.monotonic()

        async def stop_when_all_are_ready() -> None:
            nonlocal stop
            await soon(lambda: command.stdout.count(b"ready") == 50)
            stop = time.monotonic()
            command.stop.request("cancelled")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_when_all_are_ready)
            for _ in range(50):
                tasks.start_soon(partial(command.run, SHELL_WITH_CHILDREN, grace_period=20))
        assert time.monotonic() - stop < 20

    async def test_a_stop_requested_before_starts_nothing(self, command, tmp_path):
        command.stop.request("cancelled")
        outcome = await command.run(["touch", str(tmp_path / "file")])
        assert outcome.ended_by == "cancelled"
        assert not (tmp_path / "file").exists()

    async def test_a_reason_given_first_stays(self, command):
        command.stop.request("timeout")
        command.stop.request("cancelled")
        assert await command.stop.wait() == "timeout"

    async def test_a_stop_can_be_requested_from_another_thread(self, command):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(command.run, SHELL_WITH_CHILDREN)
            await command.has_printed(b"ready")
            await anyio.to_thread.run_sync(command.stop.request, "cancelled")
        assert command.outcome.ended_by == "cancelled"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")
    def test_what_may_not_be_signalled_is_named_and_not_waited_for(self):
        script = "echo ready; exec sleep 60"
        command = ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", script]
        runner = [sys.executable, str(PROGRAMS / "cannot_kill.py"), *command]
        argv = ["setpriv", "--bounding-set=-kill", *runner]
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20)
        ended_by, survivor = done.stdout.split()
        assert psutil.Process(int(survivor)).cmdline() == ["sleep", "60"]
        os.kill(int(survivor), signal.SIGKILL)
        assert ended_by == "cancelled"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")
    def test_what_may_be_signalled_but_not_read_is_stopped(self, command):
        if this_kernel().stamp(os.getpid()):
            pytest.skip("this process is a command's itself: its commands keep the outer stamp")
        daemon = program("double_fork", "bare", "stranger", command.mark)
        runner = [sys.executable, str(PROGRAMS / "cannot_kill.py"), *daemon]
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(
            [*SEES_NO_STRANGERS, *runner], env=env, capture_output=True, text=True, timeout=20
        )
        assert (done.stdout, processes(command.mark)) == ("cancelled\n", []), done.stderr


class TestIsCancelled:
    async def test_an_anyio_scope_is_left_only_when_nothing_runs(self, command):
        # So that none of this thread's time is a full collection's.
        gc.collect()
        began, cpu = time.monotonic(), time.thread_time()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(command.run, program("ignores_sigterm"))
                await command.has_printed(b"ready")
                scope.cancel()
        assert scope.cancelled_caught
        # A scope whose cancellation is caught cancels again in each round of the event loop.
        assert time.thread_time() - cpu < 0.3 * (time.monotonic() - began)
        assert processes(command.mark) == []

    async def test_an_asyncio_task_ends_only_when_nothing_runs_however_often_cancelled(
        self, command, tmp_path
    ):
        gate = tmp_path / "gate"
        clean_up = f"trap 'until test -e {gate}; do sleep 0.02; done; exit' TERM"
        argv = ["bash", "-c", f"{clean_up}; echo ready; sleep 60 & wait"]
        task = asyncio.create_task(command.run(argv, grace_period=20))
        await command.has_printed(b"ready")
        for _ in range(3):
            task.cancel()
            await anyio.wait_all_tasks_blocked()
        assert not task.done()
        gate.touch()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert processes(command.mark) == []

    def test_the_end_of_the_event_loop_stops_the_command(self):
        command = Running(uuid.uuid4().hex)

        async def main() -> None:
            command.task = asyncio.create_task(command.run(program("ignores_sigterm")))
            await command.has_printed(b"ready")

        asyncio.run(main())
        assert processes(command.mark) == []

    def test_an_event_loop_torn_down_without_a_word_kills_the_command(self):
        command = Running(uuid.uuid4().hex)
        loop = asyncio.new_event_loop()
        task = loop.create_task(command.run(program("double_fork")))
        loop.run_until_complete(command.has_printed(b"ready"))
        coroutine = task.get_coro()
        task._log_destroy_pending = False
        coroutine.close()
        loop.close()
        # Killed, but there was no loop in which to wait for it.
        asyncio.run(soon(lambda: processes(command.mark) == []))

    async def test_a_callback_that_raises_stops_the_command(self, command):
        def fail(*_) -> None:
            raise OSError(28, "No space left on device")

        command._on_output = fail
        with pytest.raises(OSError, match="No space left"):
            await command.run(SHELL_WITH_CHILDREN)
        assert processes(command.mark) == []

    async def test_a_callback_at_the_start_that_raises_stops_the_command(self, command):
        def fail(_) -> None:
            raise ValueError("no")

        command._on_started = fail
        with pytest.raises(ValueError, match="no"):
            await command.run(SHELL_WITH_CHILDREN)
        assert processes(command.mark) == []

    async def test_a_failure_right_after_the_start_leaves_nothing(self, command, monkeypatch):
        def refuse(*_) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(process_module, "open_pidfd", lambda pid: None)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            await command.run(["sleep", "60"])
        assert processes(command.mark) == []


class TestLeavesSomethingBehind:
    @pytest.mark.parametrize("how", [(), ("silent",)])
    async def test_it_is_stopped_and_named(self, command, how):
        argv = program("double_fork", "exit", *how, command.mark)
        start = time.monotonic()
        outcome = await command.run(argv, grace_period=20)
        assert time.monotonic() - start < 20
        assert (outcome.returncode, outcome.ended_by) == (0, "exit")
        [leftover] = outcome.leftovers
        assert "import os" in leftover.command_line
        assert not any(process.pid == leftover.pid for process in processes(command.mark))

    async def test_it_is_killed_when_it_ignores_sigterm(self, command):
        ignoring = " ".join(program("ignores_sigterm"))
        start = time.monotonic()
        outcome = await command.run(
            ["bash", "-c", f"exec 3< <({ignoring}); read -r -u 3 line; echo $line"],
            grace_period=0.3,
        )
        assert command.stdout == b"ready\n"
        assert len(outcome.leftovers) == 1
        # By itself it would end after 60 s.
        assert time.monotonic() - start < 20

    async def test_it_is_found_when_its_environment_is_gone(self, command):
        if this_kernel().stamp(os.getpid()):
            pytest.skip("this process is a command's itself: its commands keep the outer stamp")
        outcome = await command.run(program("double_fork", "exit", "silent", "bare", command.mark))
        assert len(outcome.leftovers) == 1

    async def test_it_is_found_when_it_never_stays_in_one_process(self, command, tmp_path):
        lock = tmp_path / "lock"
        outcome = await command.run(program("never_stays", str(lock)), grace_period=0.1)
        assert outcome.leftovers
        assert not is_locked(lock)

    async def test_what_is_about_to_end_may_print_its_last(self, command, monkeypatch):
        # A tenth of a second is much longer on a slow machine.
        for name in ("_SETTLING", "_LONGEST_SETTLING"):
            monkeypatch.setattr(process_module, name, 25 * getattr(process_module, name))
        outcome = await command.run(["bash", "-c", "exec > >(sleep 0.1; cat); echo hello"])
        assert command.stdout == b"hello\n"
        assert outcome.leftovers == ()

    async def test_a_background_process_that_prints_for_ever_is_not_waited_for(self, command):
        start = time.monotonic()
        outcome = await command.run(["bash", "-c", "yes & exit 0"], grace_period=20)
        assert time.monotonic() - start < 20
        assert len(outcome.leftovers) == 1

    async def test_a_pipe_held_by_a_process_outside_the_tree_is_not_waited_for(
        self, command, tmp_path
    ):
        gate, opened = tmp_path / "gate", []

        def steal(pid: int) -> None:
            opened.append(os.open(f"/proc/{pid}/fd/1", os.O_WRONLY))
            gate.touch()

        command._on_started = steal
        until_stolen = f"until test -e {gate}; do sleep 0.02; done"
        await command.run(["sh", "-c", f"{until_stolen}; echo hello"])
        os.close(opened[0])
        assert command.stdout == b"hello\n"

    async def test_two_commands_are_told_apart(self, command):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(command.run, SHELL_WITH_CHILDREN)
            await command.has_printed(b"ready")
            other = Running(command.mark)
            outcome = await other.run(program("double_fork", "exit"))
            assert len(outcome.leftovers) == 1
            await soon(lambda: len(processes(command.mark)) == 3)
            command.stop.request("cancelled")

    async def test_a_command_that_ends_costs_little_more_than_a_list_of_all_processes(
        self, command
    ):
        await command.run(["true"])
        table = process_module._table
        table.add("ab.1", None)
        look = min(repeat(lambda: table.look("ab.1"), number=1, repeat=20))
        listing = min(repeat(lambda: list(os.scandir("/proc")), number=1, repeat=20))
        table.remove("ab.1", None)
        # It is three times as much; to read what a hundred processes are is eighty times.
        assert look < 10 * listing


class TestWithoutFileDescriptors:
    async def test_a_stop_waits_until_it_can_look_again(self, command, caplog):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)

        async def have_none_for_a_while() -> None:
            await command.has_printed(b"ready")
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            command.stop.request("cancelled")
            try:
                await soon(lambda: "Too many open files" in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(have_none_for_a_while)
            await command.run(program("double_fork"), grace_period=5)
        assert processes(command.mark) == []

    async def test_a_command_cannot_be_started(self, command):
        await command.run(["true"])
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(SpawnFailedError, match="'true': this process has too many"):
                await command.run(["true"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class TestNested:
    async def test_a_stop_reaches_the_commands_of_a_command(self, command):
        inner = '["bash", "-c", "sleep 60 & echo ready; sleep 60"]'
        runner = [sys.executable, str(PROGRAMS / "runs_commands.py"), inner]
        outcome, took = await until_ready(command, runner, grace_period=20)
        assert outcome.ended_by == "cancelled"
        assert took < 20

    async def test_an_inner_command_ends_without_disturbing_the_outer(self, command):
        runner = [sys.executable, str(PROGRAMS / "runs_commands.py"), '["echo", "inner"]']
        outcome = await command.run(runner)
        assert (outcome.returncode, outcome.leftovers) == (0, ())
        assert command.stdout.endswith(b"inner\nall ended\n")


class TestCannotStart:
    @pytest.mark.parametrize(
        ("argv", "reason"),
        [
            (["no-such-program-here"], "program not found"),
            (["/nonexistent/program"], "program not found"),
            (["/etc/passwd/program"], "program not found"),
            (["/etc/passwd"], "permission denied"),
            (["/usr"], "is a directory"),
            (["true", "x" * 3_000_000], "argument list too long"),
            (["echo", "a\0b"], "null byte"),
            ([""], "''"),
            ([], "''"),
        ],
    )
    async def test_the_error_names_program_and_reason(self, command, argv, reason):
        with pytest.raises(SpawnFailedError, match=reason) as raised:
            await command.run(argv)
        assert (argv[0] if argv else "") in str(raised.value)

    async def test_a_file_that_is_no_program(self, command, tmp_path):
        file = tmp_path / "program"
        file.write_text("echo hello\n")
        file.chmod(0o755)
        with pytest.raises(SpawnFailedError, match="neither a binary"):
            await command.run([str(file)])

    async def test_a_shebang_that_names_nothing(self, command, tmp_path):
        file = tmp_path / "program"
        file.write_text("#!/nonexistent/interpreter\n")
        file.chmod(0o755)
        with pytest.raises(SpawnFailedError, match="interpreter that its first line names"):
            await command.run(["./program"], cwd=tmp_path)

    async def test_a_working_directory_that_is_missing(self, command, tmp_path):
        with pytest.raises(SpawnFailedError, match=r"working directory .*/missing"):
            await command.run(["true"], cwd=tmp_path / "missing")


class TestFork:
    def test_a_forked_child_leaves_the_parents_command_alone(self):
        command = Running(uuid.uuid4().hex)
        loop = asyncio.new_event_loop()
        task = loop.create_task(command.run(SHELL_WITH_CHILDREN))
        loop.run_until_complete(command.has_printed(b"ready"))
        loop.run_until_complete(soon(lambda: len(processes(command.mark)) == 3))
        pid = os.fork()
        if pid == 0:
            task.get_coro().close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert len(processes(command.mark)) == 3
        command.stop.request("cancelled")
        assert loop.run_until_complete(task).ended_by == "cancelled"
        loop.close()
        assert processes(command.mark) == []

    def test_a_forked_child_runs_commands_of_its_own(self):
        context = multiprocessing.get_context("fork")
        with context.Pool(1) as pool:
            assert pool.apply(_run_true) == 0


def _run_true() -> int:
    return asyncio.run(Running("forked").run(["true"])).returncode


class TestWithoutPidfds:
    """Where the kernel has none: before Linux 5.3, in some sandboxes, on macOS."""

    @pytest.fixture(autouse=True)
    def no_pidfds(self, monkeypatch):
        monkeypatch.setattr(process_module, "open_pidfd", lambda pid: None)
        monkeypatch.setattr(process_tree, "open_pidfd", lambda pid: None)

    async def test_a_command_ends(self, command):
        assert (await command.run(["sh", "-c", "exit 3"])).returncode == 3

    @pytest.mark.parametrize("argv", [SHELL_WITH_CHILDREN, program("double_fork")])
    async def test_a_command_is_stopped(self, command, argv):
        _, took = await until_ready(command, argv, grace_period=20)
        assert took < 20


async def test_the_main_thread_of_a_process_may_end_before_the_others(command):
    script = (
        "import ctypes, os, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print(os.getpid(), 'ready', flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    argv = ["bash", "-c", 'setsid "$@" & wait', "bash", sys.executable, "-c", script]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(command.run, argv)
        await command.has_printed(b"ready")
        pid = int(command.stdout.split()[0])
        # It looks like a zombie from then on, but a zombie has no other threads.
        await soon(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        command.stop.request("cancelled")
    assert threads(pid) <= 1


SUBREAPER = """
import asyncio, ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1)
from cloudops_prefect.process import StopRequest, run_process
own = [subprocess.Popen(["sh", "-c", "exit 3"], start_new_session=new) for new in (False, True)]
forked = os.fork() or os._exit(4)
for pid in (*(one.pid for one in own), forked):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
async def main():
    theirs = await asyncio.create_subprocess_exec("sh", "-c", "exit 5")
    await run_process(sys.argv[2:], env=os.environ, cwd=sys.argv[1], on_output=print,
        stop=StopRequest(), timeout=None, grace_period=1)
    return await theirs.wait()
theirs = asyncio.run(main())
import psutil
zombies = [c.pid for c in psutil.Process().children() if c.status() == "zombie"]
print(sorted(zombies) == sorted([*(one.pid for one in own), forked]))
print(theirs, os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]), *(one.wait() for one in own))
"""


@pytest.mark.parametrize(
    "script",
    [
        "(setsid sleep 60 >/dev/null 2>&1 &)",
        (
            "(sh -c 'echo $$' > orphan &); until test -s orphan &&"
            " ! grep -q '^State:.[RSD]' /proc/$(cat orphan)/status; do sleep 0.02; done"
        ),
    ],
    ids=["alive", "ended"],
)
def test_orphans_of_a_subreaper_are_waited_for_and_no_others(script, tmp_path):
    """Process 1 of a container gets them, and nobody else would wait for them."""
    if this_kernel().stamp(os.getpid()):
        pytest.skip("this process is a command's itself: its commands keep the outer stamp")
    argv = [sys.executable, "-c", SUBREAPER, str(tmp_path), "bash", "-c", script]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "True\n5 4 3 3\n", done.stderr


def test_psutil_is_not_needed_on_linux():
    code = "import sys, cloudops_prefect.process; print('psutil' in sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", code], cwd=PROGRAMS.parent.parent)
    assert output == b"False\n"
