"""The program that a guard runs: `guard_process.py MARK PID`, with a pipe as its stdin.

Run by path in an interpreter that has only the standard library; `guard` starts it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

if __name__ == "__main__":
    # The package without its __init__: nothing is imported but what is needed.
    package = type(sys)("cloudops_prefect")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120 (pathlib takes 5 ms)
    sys.modules[package.__name__] = package

from cloudops_prefect.kernel import open_pidfd
from cloudops_prefect.process_tree import ProcessTable, ProcessTree

FAREWELL = b"."
"""Comes through the pipe before an orderly end, when nothing should be left."""

_GRACE_PERIOD = 0.5
_BETWEEN_LOOKS = 0.1
_EMPTY_LOOKS_AFTER_KILL = 5
_LONGEST_SPAWN_SECONDS = 10.0
"""How long a child may take from its fork to its exec, on a machine that has no time for it."""


def main(mark: str, guarded: int) -> None:
    """Wait for the end of the process `guarded`, then stop what it has left running."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    _wait_for_end(guarded)
    if _pipe_is_readable() and os.read(0, 1) == FAREWELL:
        _stop(mark, empty_looks_wanted=1, spawn_deadline=0)
    else:
        spawn_deadline = time.monotonic() + _LONGEST_SPAWN_SECONDS
        _stop(mark, _EMPTY_LOOKS_AFTER_KILL, spawn_deadline)


def _wait_for_end(guarded: int) -> None:
    """Wait for the pipe's end, or the process's.

    The pipe also tells of an exec. The process's end also tells where something that we know
    nothing of has inherited the pipe, a child forked by an extension module, say.
    """
    poll = select.poll()
    poll.register(0, select.POLLIN)
    pidfd = open_pidfd(guarded)
    if pidfd is not None:
        poll.register(pidfd, select.POLLIN)
    if os.getppid() == guarded:
        poll.poll()


def _pipe_is_readable() -> bool:
    return bool(select.select([0], [], [], 0)[0])


def _stop(mark: str, empty_looks_wanted: int, spawn_deadline: float) -> None:
    """Stop what belongs to `mark` until looks at all processes find nothing of it.

    A child between fork and exec has no mark yet, but holds the pipe until just before its exec.
    Looks count only once the pipe has ended; after `spawn_deadline` something else holds it.
    """
    deadline = time.monotonic() + _GRACE_PERIOD
    empty_looks = 0
    tree = ProcessTree(ProcessTable(), mark)
    while True:
        members = tree.look()
        if members:
            empty_looks, empty_looks_wanted = 0, _EMPTY_LOOKS_AFTER_KILL
            (tree.kill if time.monotonic() >= deadline else tree.terminate)(members)
        else:
            if _pipe_is_readable() or time.monotonic() >= spawn_deadline:
                empty_looks += 1
            if empty_looks == empty_looks_wanted:
                return
            # A table reads each process once, perhaps before the exec that gives it the mark.
            tree = ProcessTree(ProcessTable(), mark)
        _wait_for_one(tree.pidfds(members))


def _wait_for_one(pidfds: list[int]) -> None:
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    poll.poll(_BETWEEN_LOOKS * 1000)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
