"""Run one command as a process tree: start it, pass its output on, leave nothing running."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from anyio import CancelScope

from cloudops_prefect import guard
from cloudops_prefect.background import BackgroundProcesses
from cloudops_prefect.errors import SpawnFailedError
from cloudops_prefect.kernel import open_pidfd
from cloudops_prefect.process_tree import (
    MARK_VARIABLE,
    Description,
    Member,
    ProcessTable,
    ProcessTree,
    marked,
)
from cloudops_prefect.spawn import (
    OutputPipe,
    Spawned,
    Stream,
    remove_reader,
    spawn,
    wait_without_reaping,
)
from cloudops_prefect.stop_request import StopRequest, Wakeup
from cloudops_prefect.termination import look, terminate

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Description", "EndedBy", "ProcessOutcome", "StopRequest", "Stream", "run_process"]
EndedBy: TypeAlias = Literal["exit", "timeout", "cancelled"]

_log = logging.getLogger(__name__)
_table = ProcessTable()
_numbers = itertools.count(1)

_SETTLING = 0.2
_LONGEST_SETTLING = 1.0
_UNKNOWN_RETURNCODE = 255
"""What asyncio reports where somebody else has waited for the child; ours, too, if nobody can."""


@dataclass(frozen=True, slots=True)
class ProcessOutcome:
    """How a command ended. Nothing of it runs, except `survivors` and `background`."""

    returncode: int
    ended_by: EndedBy
    started_at: datetime
    ended_at: datetime
    leftovers: tuple[Description, ...] = ()
    """Background processes that had to be stopped after the main process had ended."""
    survivors: tuple[Description, ...] = ()
    """Processes that another user's rights kept from being stopped (started through sudo, say)."""
    background: BackgroundProcesses | None = None
    """Processes that were left running because the caller wanted that; it has to stop them."""


async def run_process(  # noqa: PLR0913 (one keyword for each thing that is the caller's to say)
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    on_output: Callable[[Stream, bytes], None],
    stop: StopRequest,
    timeout: float | None,
    grace_period: float,
    on_started: Callable[[int], None] | None = None,
    keep_background: bool = False,
) -> ProcessOutcome:
    """Run a command to its end and return only when nothing of its process tree is left.

    stdin is empty. The process leads a session of its own. What it leaves in the background is
    stopped as well, unless `keep_background` is set and the command ended by itself. If the
    surrounding task is cancelled, or a callback raises, the tree is stopped all the same before
    that goes on.

    Args:
        argv: The program, by name (looked up in `env`'s PATH) or path, and its arguments.
        env: The complete environment.
        cwd: Where it runs; None: where this process runs.
        on_output: Called in the event loop with what was read. Bytes of one stream come in order.
        stop: Stops the command when requested. If it was before, nothing is started.
        timeout: Seconds from the start after which the command is stopped.
        grace_period: Seconds from SIGTERM to SIGKILL.
        on_started: Called with the pid once the program runs.
        keep_background: Leave processes in the background running; the outcome has them.

    Raises:
        SpawnFailedError: The program can't be started. The message names it and the reason.
    """
    if stop.reason is not None:
        now = datetime.now(UTC)
        return ProcessOutcome(-signal.SIGTERM, stop.reason, now, now)
    try:
        mark = f"{guard.ensure()}.{next(_numbers)}"
    except OSError as error:
        raise SpawnFailedError(f"the guard process can't be started: {error}") from error
    spawned = spawn(argv, env={**env, MARK_VARIABLE: marked(mark)}, cwd=cwd)
    try:
        command = _Command(spawned, mark, on_output, stop, keep_background=keep_background)
    except BaseException:
        _table.remove(mark, spawned.popen.pid)
        spawned.abandon()
        raise
    try:
        if on_started is not None:
            command.announce(on_started)
        return await command.run(timeout, grace_period)
    finally:
        command.close()


class _Command:
    """A command from its start to the end of its last process."""

    def __init__(
        self,
        spawned: Spawned,
        mark: str,
        on_output: Callable[[Stream, bytes], None],
        stop: StopRequest,
        *,
        keep_background: bool,
    ) -> None:
        self._keep_background = keep_background
        self._background: BackgroundProcesses | None = None
        self._started_at = datetime.now(UTC)
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._wakeup = Wakeup(self._loop)
        self._popen = spawned.popen
        self._pid = spawned.popen.pid
        self._owner = os.getpid()
        self._tree = ProcessTree(_table, mark, self._pid)
        self._on_output = on_output
        self._stop_request = stop
        self._failure: Exception | None = None
        self._interrupted: asyncio.CancelledError | None = None
        self._last_output = 0.0
        self._exited = False
        self._exited_at: float | None = None
        self._pidfd = self._watch_exit()
        self._pipes = (
            OutputPipe(spawned.stdout, self._loop, partial(self._deliver, "stdout")),
            OutputPipe(spawned.stderr, self._loop, partial(self._deliver, "stderr")),
        )
        stop.subscribe(self._wakeup.set_from_any_thread)

    def announce(self, on_started: Callable[[int], None]) -> None:
        """Tell the caller that the program runs."""
        try:
            on_started(self._pid)
        except Exception as error:  # noqa: BLE001 (raised once the command has been stopped)
            self._failure = error

    async def run(self, timeout: float | None, grace_period: float) -> ProcessOutcome:
        """Wait for the end, or bring it about."""
        ended_by = await self._end(timeout)
        left = await self._settle() if ended_by == "exit" else []
        descriptions = self._describe(left)
        if left and self._keep_background:
            self._drain()
            if not self._is_to_stop:
                return self._leave_running(descriptions)
        if left or ended_by != "exit":
            # anyio's own cancellation comes back each time that it is caught.
            with CancelScope(shield=True):
                await terminate(self._tree, grace_period, lambda: self._exited, self._watch)
        survivors = self._describe(self._tree.untouchable())
        if not self._exited:
            survivors = (self._tree.describe(self._pid), *survivors)
        self._drain()
        returncode = self._reap()
        if (error := self._interrupted or self._failure) is not None:
            raise error
        ended_at = datetime.now(UTC)
        return ProcessOutcome(
            returncode, ended_by, self._started_at, ended_at, descriptions, survivors
        )

    @property
    def _is_to_stop(self) -> bool:
        wanted = self._stop_request.requested or self._interrupted is not None
        return wanted or self._failure is not None

    def _drain(self) -> None:
        for pipe in self._pipes:
            pipe.drain()

    def _leave_running(self, descriptions: tuple[Description, ...]) -> ProcessOutcome:
        """Give the processes that are left to the caller."""
        returncode = self._read_exit_code()
        output = [pipe.fd for pipe in self._pipes if pipe.open]
        self._background = BackgroundProcesses(self._tree, descriptions, output)
        for pipe in self._pipes:
            pipe.detach()
        self._popen.returncode = returncode
        return ProcessOutcome(
            returncode,
            "exit",
            self._started_at,
            datetime.now(UTC),
            background=self._background,
        )

    def close(self) -> None:
        """Let go of everything; kill what runs, if the event loop ended around us."""
        if os.getpid() != self._owner:
            # A fork's copy: the command, and even the event loop's epoll, are the parent's.
            self._popen.returncode = _UNKNOWN_RETURNCODE
            return
        self._stop_request.unsubscribe(self._wakeup.set_from_any_thread)
        if self._popen.returncode is None:
            self._tree.kill([])
            with suppress(OSError):
                self._tree.kill(self._tree.look())
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(1)
        if self._background is None:
            self._tree.close()
        for pipe in self._pipes:
            pipe.close()
        if self._pidfd is not None:
            remove_reader(self._loop, self._pidfd)
            os.close(self._pidfd)
        # They hold the frames that hold us.
        self._interrupted = self._failure = None

    def _deliver(self, stream: Stream, chunk: bytes) -> None:
        self._last_output = self._loop.time()
        if self._failure is not None:
            return
        try:
            self._on_output(stream, chunk)
        except Exception as error:  # noqa: BLE001 (raised once the command has been stopped)
            self._failure = error
            self._wakeup.set()

    async def _end(self, timeout: float | None) -> EndedBy:
        """Wait until the main process has ended, or there is a reason to stop it."""
        deadline = None if timeout is None else self._started + timeout
        timer = None if deadline is None else self._loop.call_at(deadline, self._wakeup.set)
        try:
            while not self._exited:
                if self._stop_request.reason is not None:
                    return self._stop_request.reason
                if deadline is not None and self._loop.time() >= deadline:
                    return "timeout"
                if self._failure is not None:
                    return "cancelled"
                await self._wakeup.wait()
        except asyncio.CancelledError as error:
            self._interrupted = error
            return "cancelled"
        finally:
            if timer is not None:
                timer.cancel()
        return "exit"

    async def _settle(self) -> list[Member]:
        """Let processes in the background end that are about to, and return the others.

        In `exec > >(tee log)` the shell ends before tee has passed on what it printed. A process
        that can't print, or stays silent, has nothing that we would lose.
        """
        members = await look(self._tree, self._watch, since=self._exited_at)
        self._last_output = self._loop.time()
        end = self._last_output + _LONGEST_SETTLING
        while members and any(pipe.open for pipe in self._pipes):
            silent_until = min(self._last_output + _SETTLING, end)
            if self._is_to_stop or self._loop.time() >= silent_until:
                break
            with CancelScope(shield=True):
                await self._pause(_SETTLING / 10)
            members = await look(self._tree, self._watch)
        return members

    def _describe(self, members: list[Member]) -> tuple[Description, ...]:
        return tuple(self._tree.describe(member.process.pid) for member in members)

    async def _watch(self, members: list[Member], seconds: float) -> None:
        with self._watching(members):
            await self._pause(seconds)

    @contextmanager
    def _watching(self, members: list[Member]) -> Generator[None]:
        """Wake up when one of `members` ends. They must not be looked at meanwhile."""
        pidfds = self._tree.pidfds(members)
        for pidfd in pidfds:
            self._loop.add_reader(pidfd, self._wakeup.set)
        try:
            yield
        finally:
            for pidfd in pidfds:
                remove_reader(self._loop, pidfd)

    async def _pause(self, seconds: float) -> None:
        """Wait for something to happen, but not for long. Being cancelled counts as something."""
        timer = self._loop.call_later(seconds, self._wakeup.set)
        try:
            await self._wakeup.wait()
        except asyncio.CancelledError as error:
            self._interrupted = self._interrupted or error
        finally:
            timer.cancel()

    def _watch_exit(self) -> int | None:
        pidfd = open_pidfd(self._pid)
        if pidfd is None:
            threading.Thread(target=self._wait_in_thread, daemon=True).start()
        else:
            self._loop.add_reader(pidfd, self._on_exit)
        return pidfd

    def _wait_in_thread(self) -> None:
        wait_without_reaping(self._pid)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_exit)

    def _on_exit(self) -> None:
        self._exited = True
        self._exited_at = time.monotonic()
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
        self._wakeup.set()

    def _read_exit_code(self) -> int:
        """Return the exit code of the main process, which stays a zombie where that is possible."""
        if not hasattr(os, "waitid"):
            # Python before 3.13 on macOS: from now on the pid may be that of another process.
            self._tree.forget_leader()
            return self._wait()
        try:
            ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return self._wait()
        assert ended is not None, "it is None only where WNOHANG is given"  # noqa: S101
        has_exited = ended.si_code == os.CLD_EXITED
        return ended.si_status if has_exited else -ended.si_status

    def _reap(self) -> int:
        """Let the kernel forget the main process, once it has ended. Its pid may be reused then."""
        self._tree.close()
        if not self._exited:
            threading.Thread(target=os.waitpid, args=(self._pid, 0), daemon=True).start()
            self._popen.returncode = _UNKNOWN_RETURNCODE
            return _UNKNOWN_RETURNCODE
        self._popen.returncode = self._wait()
        return self._popen.returncode

    def _wait(self) -> int:
        try:
            _, status = os.waitpid(self._pid, 0)
        except ChildProcessError:
            _log.warning("somebody else has waited for pid %d: its exit code is lost", self._pid)
            return _UNKNOWN_RETURNCODE
        return os.waitstatus_to_exitcode(status)


def _start_anew() -> None:
    """In a forked child: the commands are the parent's, and the table may be locked for ever."""
    global _table  # noqa: PLW0603
    _table = ProcessTable()


os.register_at_fork(after_in_child=_start_anew)
