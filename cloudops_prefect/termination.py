"""Stopping a process tree: SIGTERM, a grace period, SIGKILL to what is left."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudops_prefect.process_tree import Member, ProcessTree

COMPLAINT_INTERVAL_SECONDS = 10.0

_LONGEST_PAUSE_SECONDS = 0.1
_SHORTEST_PAUSE_SECONDS = 0.02
_log = logging.getLogger(__name__)


class Pause(Protocol):
    """Waits for something to happen to processes, but not for long."""

    async def __call__(self, members: list[Member], seconds: float, /) -> None:
        """Return after `seconds`, or earlier where one of `members` has ended."""
        ...


async def look(tree: ProcessTree, pause: Pause, since: float | None = None) -> list[Member]:
    """Look for members of a tree, again and again if the system doesn't let us look at once."""
    while True:
        try:
            return tree.look(since)
        except OSError as error:
            _log.warning("can't look for processes of pid %s: %s", tree.leader, error)
        with anyio.CancelScope(shield=True):
            await pause([], _LONGEST_PAUSE_SECONDS)


async def terminate(
    tree: ProcessTree, grace_period: float, has_leader_exited: Callable[[], bool], pause: Pause
) -> None:
    """Stop a tree, and return once two looks in a row have found nothing.

    Two, because a process can hide from one: where pids have run over, it may be born behind
    the look, of a parent that ends before it.

    Args:
        tree: What is stopped.
        grace_period: Seconds from SIGTERM to SIGKILL.
        has_leader_exited: Returns whether the process that leads the tree is a zombie.
        pause: Waits between two looks.
    """
    now = anyio.current_time()
    deadline, complaint = now + grace_period, now + grace_period + COMPLAINT_INTERVAL_SECONDS
    empty_looks, untouchable = 0, False
    tree.terminate(await look(tree, pause))
    while empty_looks < 2:
        members = await look(tree, pause)
        exited = has_leader_exited()
        if not members and (exited or untouchable):
            empty_looks += 1
            continue
        empty_looks = 0
        now = anyio.current_time()
        if now >= deadline:
            tree.kill(members)
            untouchable = tree.leader_is_untouchable()
        else:
            tree.terminate_orphans(members, leader_alive=not exited)
        if now >= complaint:
            _complain(tree, members, has_leader_exited=exited)
            complaint = now + COMPLAINT_INTERVAL_SECONDS
        longest = max(deadline - now, _SHORTEST_PAUSE_SECONDS)
        await pause(members, min(longest, _LONGEST_PAUSE_SECONDS))


def _complain(tree: ProcessTree, members: list[Member], *, has_leader_exited: bool) -> None:
    leader = [] if has_leader_exited else [tree.leader]
    pids = [*(member.process.pid for member in members), *leader]
    _log.warning("SIGKILL has not ended yet: %s", ", ".join(map(str, pids)))
