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


def main(mark: str, guarded: int) -> None:
    """Wait for the end of the process `guarded`, then stop what it has left running."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    _wait_for_end(guarded)
    orderly = bool(select.select([0], [], [], 0)[0]) and os.read(0, 1) == FAREWELL
    _stop(ProcessTree(ProcessTable(), mark), empty_looks_wanted=1 if orderly else 2)


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


def _stop(tree: ProcessTree, empty_looks_wanted: int) -> None:
    deadline = time.monotonic() + _GRACE_PERIOD
    empty_looks = 0
    while True:
        members = tree.look()
        if members:
            empty_looks, empty_looks_wanted = 0, 2
            (tree.kill if time.monotonic() >= deadline else tree.terminate)(members)
        else:
            empty_looks += 1
            if empty_looks == empty_looks_wanted:
                return
        _wait_for_one(tree.pidfds(members))


def _wait_for_one(pidfds: list[int]) -> None:
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    poll.poll(_BETWEEN_LOOKS * 1000)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
