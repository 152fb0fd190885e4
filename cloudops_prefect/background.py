"""Processes that a command leaves running on purpose, until its run ends."""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from cloudops_prefect.termination import terminate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudops_prefect.process_tree import Description, Member, ProcessTree

_DRAIN_BYTES = 65_536
_LOOK_INTERVAL_SECONDS = 0.02


class BackgroundProcesses:
    """What is left of a command's process tree after its main process has ended.

    Needs no event loop between the command's end and `stop`. The main process stays a zombie as
    long, so that its pid, by which the kernel knows its session and group, means nothing else.

    Args:
        tree: The processes.
        descriptions: What each is to a person.
        output: File descriptors of the pipes that they may still print into. What comes is thrown
            away: without a reader, they would end by SIGPIPE.
    """

    def __init__(
        self, tree: ProcessTree, descriptions: Sequence[Description], output: Sequence[int]
    ) -> None:
        self.descriptions = tuple(descriptions)
        self._tree = tree
        self._owner = os.getpid()
        self._drain = _Drain(output) if output else None
        self._gone = False

    @property
    def can_print(self) -> bool:
        """Whether the processes can still print into what their command printed into."""
        return self._drain is not None

    async def stop(self, grace_period: float) -> tuple[Description, ...]:
        """Stop the processes; twice is once.

        Args:
            grace_period: Seconds from SIGTERM to SIGKILL.

        Returns:
            Those that another user's rights keep from being stopped.
        """
        if self._gone or os.getpid() != self._owner:
            return ()
        try:
            # Also where what waits for this is cancelled: nothing may be left.
            with anyio.CancelScope(shield=True):
                await terminate(self._tree, grace_period, lambda: True, _sleep)
        except BaseException:
            self.kill()
            raise
        untouchable = self._tree.untouchable()
        survivors = tuple(self._tree.describe(one.process.pid) for one in untouchable)
        self._release()
        return survivors

    def kill(self) -> None:
        """End the processes at once, where nobody can wait for them; twice is once."""
        if self._gone or os.getpid() != self._owner:
            return
        with suppress(OSError):
            self._tree.kill(self._tree.look())
        self._release()

    def _release(self) -> None:
        self._gone = True
        self._tree.close()
        if self._drain is not None:
            self._drain.close()
        if self._tree.leader is not None:
            with suppress(ChildProcessError):
                os.waitpid(self._tree.leader, os.WNOHANG)


class _Drain:
    """A thread that reads pipes to their ends, or until it is closed."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = {*fds}
        self._woken, self._wake = os.pipe()
        self._thread = threading.Thread(
            target=self._run, name="cloudops-background-output", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop reading, and close the pipes."""
        os.close(self._wake)
        self._thread.join()

    def _run(self) -> None:
        poll = select.poll()
        for fd in (*self._fds, self._woken):
            poll.register(fd, select.POLLIN)
        closed = False
        while self._fds and not closed:
            for fd, _ in poll.poll():
                closed = closed or fd == self._woken
                if fd in self._fds and not _has_more(fd):
                    poll.unregister(fd)
                    self._fds.discard(fd)
                    os.close(fd)
        for fd in (*self._fds, self._woken):
            os.close(fd)


def _has_more(fd: int) -> bool:
    """Read what is there; return whether more may come."""
    try:
        return bool(os.read(fd, _DRAIN_BYTES))
    except BlockingIOError:
        return True
    except OSError:
        return False


async def _sleep(_: list[Member], seconds: float) -> None:
    await anyio.sleep(min(seconds, _LOOK_INTERVAL_SECONDS))
