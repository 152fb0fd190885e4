"""Processes that a command leaves running on purpose, until they are stopped."""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

import anyio
import anyio.lowlevel
import psutil
import pytest
from running import PROGRAMS, Running, processes, program, soon

from cloudops_prefect.kernel import this_kernel

pytestmark = pytest.mark.anyio

QUIET_SLEEP = "sleep 60 >/dev/null 2>&1 </dev/null"


@pytest.fixture
async def command(anyio_backend):
    running = Running(uuid.uuid4().hex)
    yield running
    left = processes(running.mark)
    for process in left:
        process.kill()
    assert left == []


async def kept(command: Running, argv, **options):
    """Run a command, and return the outcome and the processes that it has left running."""
    outcome = await command.run(argv, keep_background=True, **options)
    return outcome, processes(command.mark)


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (["bash", "-c", f"{QUIET_SLEEP} & echo started"], 1),
        (["bash", "-c", "sleep 60 & sleep 60 & echo started"], 2),
        (["bash", "-c", f"setsid bash -c '{QUIET_SLEEP} & sleep 60' & sleep 0.1"], 3),
        (program("double_fork", "exit"), 1),
        (program("double_fork", "exit", "silent"), 1),
    ],
)
async def test_what_is_left_lives_until_it_is_stopped(command, argv, count):
    outcome, left = await kept(command, argv)
    assert (outcome.returncode, outcome.ended_by, outcome.leftovers) == (0, "exit", ())
    assert len(left) == count
    assert {one.pid for one in left} == {one.pid for one in outcome.background.descriptions}
    assert await outcome.background.stop(20) == ()
    assert processes(command.mark) == []
    assert await outcome.background.stop(20) == ()


@pytest.mark.parametrize(
    ("end", "returncode"), [("exit 3", 3), ("kill -KILL $$", -signal.SIGKILL), ("true", 0)]
)
async def test_the_exit_code_is_that_of_the_command(command, end, returncode):
    outcome, left = await kept(command, ["bash", "-c", f"{QUIET_SLEEP} & {end}"])
    assert (outcome.returncode, len(left)) == (returncode, 1)
    await outcome.background.stop(20)


async def test_where_nothing_is_left_there_is_nothing_to_stop(command):
    outcome = await command.run(["true"], keep_background=True)
    assert (outcome.background, outcome.leftovers) == (None, ())


async def test_what_ignores_sigterm_is_killed_after_the_grace_period(command):
    ignoring = " ".join(program("ignores_sigterm"))
    start = f"exec 3< <({ignoring}); read -r -u 3 line; echo $line"
    outcome, left = await kept(command, ["bash", "-c", start])
    assert len(left) == 1
    began = time.monotonic()
    await outcome.background.stop(0.3)
    assert time.monotonic() - began >= 0.3
    assert processes(command.mark) == []


async def test_what_has_lost_its_environment_is_found_when_it_is_stopped(command):
    if this_kernel().stamp(os.getpid()):
        pytest.skip("this process is a command's itself: its commands keep the outer stamp")
    argv = program("double_fork", "exit", "silent", "bare", command.mark)
    outcome, left = await kept(command, argv)
    assert len(left) == 1
    await outcome.background.stop(20)
    assert processes(command.mark) == []


async def test_what_is_started_later_ends_as_well(command, tmp_path):
    gate = tmp_path / "gate"
    later = (
        f"until test -e {gate}; do sleep 0.02; done; setsid bash -c 'sleep 60 & sleep 61' & wait"
    )
    outcome, _ = await kept(command, ["bash", "-c", f"({later}) >/dev/null 2>&1 & echo started"])
    gate.touch()
    await soon(lambda: len(processes(command.mark)) >= 4)
    await outcome.background.stop(20)
    assert processes(command.mark) == []


async def test_what_goes_on_printing_does_not_die_of_it(command, tmp_path):
    count = tmp_path / "count"
    ticking = f"{sys.executable} {PROGRAMS / 'ticks.py'} {count}"
    outcome, (left,) = await kept(command, ["bash", "-c", f"{ticking} & echo started"])
    assert outcome.background.can_print
    printed = int(count.read_text().split()[0])
    # Far more than a pipe holds.
    await soon(lambda: int((count.read_text().split() or ["0"])[0]) > printed + 1000, 30)
    assert left.is_running()
    await outcome.background.stop(20)
    assert processes(command.mark) == []


async def test_what_was_printed_before_the_command_ended_is_kept(command):
    outcome, _ = await kept(command, ["bash", "-c", "(echo early; sleep 60) & sleep 0.2; echo end"])
    assert sorted(command.stdout.split()) == [b"early", b"end"]
    await outcome.background.stop(20)


async def test_a_stop_request_leaves_nothing(command):
    async with anyio.create_task_group() as tasks:

        async def stop() -> None:
            await command.has_printed(b"ready")
            command.stop.request("cancelled")

        tasks.start_soon(stop)
        argv = ["bash", "-c", f"{QUIET_SLEEP} & echo ready; sleep 60"]
        outcome = await command.run(argv, keep_background=True)
    assert (outcome.ended_by, outcome.background) == ("cancelled", None)
    assert processes(command.mark) == []


async def test_a_timeout_leaves_nothing(command):
    argv = ["bash", "-c", f"{QUIET_SLEEP} & sleep 60"]
    outcome = await command.run(argv, timeout=0.3, keep_background=True)
    assert (outcome.ended_by, outcome.background) == ("timeout", None)


async def test_a_callback_that_fails_leaves_nothing(command, tmp_path):
    def fail(stream, chunk):
        raise ValueError("full")

    command._on_output = fail
    with pytest.raises(ValueError, match="full"):
        await kept(command, ["bash", "-c", f"{QUIET_SLEEP} & echo started"])
    assert processes(command.mark) == []


async def test_who_can_not_wait_kills(command):
    outcome, left = await kept(command, ["bash", "-c", "sleep 60 & echo started"])
    assert len(left) == 1
    outcome.background.kill()
    await soon(lambda: processes(command.mark) == [])
    outcome.background.kill()
    assert await outcome.background.stop(1) == ()


async def test_a_stop_that_is_interrupted_kills(command):
    ignoring = " ".join(program("ignores_sigterm"))
    start = f"exec 3< <({ignoring}); read -r -u 3 line; echo $line"
    outcome, left = await kept(command, ["bash", "-c", start])
    assert len(left) == 1
    stopping = asyncio.create_task(outcome.background.stop(60))
    await anyio.lowlevel.checkpoint()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await soon(lambda: processes(command.mark) == [])


def test_it_is_stopped_in_another_event_loop_than_it_was_left_in():
    command = Running(uuid.uuid4().hex)
    argv = ["bash", "-c", "sleep 60 & echo started"]
    outcome, left = anyio.run(lambda: kept(command, argv))
    assert [one.is_running() for one in left] == [True]
    anyio.run(outcome.background.stop, 20)
    assert processes(command.mark) == []


async def test_nothing_is_left_in_this_process(command):
    def resources() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    await command.run(["true"])
    gc.collect()
    before = resources()
    outcomes = []
    for text in ("sleep 60 & echo started", f"{QUIET_SLEEP} & echo started"):
        outcome, _ = await kept(command, ["bash", "-c", text])
        outcomes.append(outcome)
    for outcome in outcomes:
        await outcome.background.stop(20)
    assert resources() == before
    assert not [one for one in psutil.Process().children() if one.pid == command.pid]
