"""The processes that descend from a command: found wherever they went, signalled by identity.

Nothing here imports anything but the standard library: the guard runs it in an interpreter that
has nothing else.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cloudops_prefect.kernel import Kernel, Status, open_pidfd, this_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK_VARIABLE = "CLOUDOPS_PROCESS_TREE"
"""Holds the marks of all commands that a process descends from, the outermost first, by colons."""
GUARD_VARIABLE = "CLOUDOPS_GUARD"
"""Is in the environment of a guard, which belongs to no command and ends by itself."""

_MARKS = re.compile(rb"(?:\A|\0)" + MARK_VARIABLE.encode() + rb"=([^\0]*)")
_GUARD = re.compile(rb"(?:\A|\0)" + GUARD_VARIABLE.encode() + rb"=")
_MOST_PIDFDS = 64
_MOST_ROUNDS = 100
_MOST_BORN = 1000
_MOST_UNSEEN = 4
_STAMP_NUMBER_BITS = 24
_STAMP_OWNER_BITS = 38


def marked(mark: str) -> str:
    """The value of `MARK_VARIABLE` for a command of this process: our own marks, and `mark`."""
    outer = os.environ.get(MARK_VARIABLE)
    return f"{outer}:{mark}" if outer else mark


def stamp_of(mark: str) -> int:
    """The number that stands for a mark: `OWNER.NUMBER`, or `OWNER` for all of its commands."""
    owner, _, number = mark.partition(".")
    stamp = 1 << _STAMP_OWNER_BITS | int(owner, 16) & ((1 << _STAMP_OWNER_BITS) - 1)
    mask = (1 << _STAMP_NUMBER_BITS) - 1
    return stamp << _STAMP_NUMBER_BITS | int(number) & mask if number else stamp


class Process(NamedTuple):
    """One process, told from others that have had or will have its pid."""

    pid: int
    start: float


@dataclass(slots=True)
class _Newcomer:
    pid: int
    incarnation: float
    status: Status


@dataclass(slots=True)
class _Seen:
    incarnation: float
    marks: frozenset[str]


class ProcessTable:
    """Which command each process of the machine belongs to, as seen at its first sight.

    Descent never changes, so what was seen once need not be read again. Evidence of it does go
    away (a parent dies, a session is left, an environment is overwritten), so what was seen once
    is kept while the process lives.

    The evidence, any of which is enough: a mark in the environment; a parent that belongs to the
    command; the command's own session, which nobody can enter from outside; a stamp.
    """

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = kernel or this_kernel()
        self._seen: dict[int, _Seen] = {}
        self._leaders: dict[int, str] = {}
        self._stamps: dict[int, str] = {}
        self._members: dict[str, set[Process]] = {}
        self._looked_at = 0.0
        self._lock = threading.Lock()

    def add(self, mark: str, leader: int | None) -> None:
        """From now on, processes that descend from `leader` or carry `mark` are kept by `mark`."""
        stamp = stamp_of(mark)
        with self._lock:
            self._members[mark] = set()
            self._stamps[stamp] = mark
            if leader is not None:
                self._seen.pop(leader, None)
                self._leaders[leader] = mark
        if leader is not None:
            self.kernel.give_stamp(leader, stamp)

    def remove(self, mark: str, leader: int | None) -> None:
        """Forget a command. Its leader's pid may be reused from now on."""
        with self._lock:
            self._members.pop(mark, None)
            self._stamps.pop(stamp_of(mark), None)
            # When this is called again the pid may lead another command.
            if leader is not None and self._leaders.get(leader) == mark:
                del self._leaders[leader]

    def forget_leader(self, leader: int) -> None:
        """Forget a leader whose pid may be reused, and keep what was seen to descend from it."""
        with self._lock:
            self._leaders.pop(leader, None)

    def look(self, mark: str, since: float | None = None) -> set[Process]:
        """Every process seen so far that belongs to `mark`, without its leader; some have ended.

        Args:
            mark: The command's.
            since: A moment of `time.monotonic()`: a look that began later is new enough, so that
                commands that end together share one. None: look now.
        """
        with self._lock:
            if since is None or self._looked_at <= since:
                self._looked_at = time.monotonic()
                self._refresh()
            return self._members[mark]

    def _refresh(self) -> None:
        newest = self.kernel.newest_pid()
        self._list()
        self._meet_newborn(newest)

    def _meet_newborn(self, newest: int) -> None:
        """Meet what was born since the pid `newest` was given away, until there is no more.

        What goes on in another process every millisecond is dead before a list comes to it, and
        the next one is born behind the list.
        """
        # A pid is given away a little before its process can be seen: some are met once more.
        quiet_rounds, quiet_rounds_wanted = 0, 1
        for _ in range(_MOST_ROUNDS):
            before, newest = newest, self.kernel.newest_pid()
            if before <= newest <= before + _MOST_BORN:
                first = max(before - _MOST_UNSEEN, 0) + 1
                self._meet_all(self.kernel.those_of(range(first, newest + 1)))
            else:
                self._list()
            quiet_rounds += 1
            if newest != before:
                quiet_rounds, quiet_rounds_wanted = 0, 2
            if quiet_rounds == quiet_rounds_wanted:
                break

    def _list(self) -> None:
        listed = self._meet_all(self.kernel.pids())
        for pid in self._seen.keys() - listed:
            del self._seen[pid]

    def _meet_all(self, pids: Iterator[tuple[int, float]]) -> set[int]:
        newcomers: list[_Newcomer] = []
        listed: set[int] = set()
        for pid, incarnation in pids:
            listed.add(pid)
            seen = self._seen.get(pid)
            if pid in self._leaders or (seen is not None and seen.incarnation == incarnation):
                continue
            self._seen.pop(pid, None)
            status = self.kernel.status(pid)
            if status is not None:
                newcomers.append(_Newcomer(pid, incarnation, status))
        # The older first: by then a parent and the leader of a session are known.
        for newcomer in sorted(newcomers, key=lambda new: (new.status.start, new.pid)):
            self._meet(newcomer)
        return listed

    def _meet(self, newcomer: _Newcomer) -> None:
        pid, status = newcomer.pid, newcomer.status
        if not status.alive and status.parent != os.getpid():
            # It may come to us yet.
            return
        # An orphan that has come to us as a zombie is to be reaped. It is no child that somebody
        # here waits for: such a one has neither a command's session nor its stamp.
        environ = self.kernel.environ(pid) if status.alive else b""
        marks = frozenset[str]()
        if not _GUARD.search(environ or b""):
            marks = _marks(environ or b"") | self._inherited(status) | self._stamped(pid)
        if environ is None and not marks:
            return
        self._seen[pid] = _Seen(newcomer.incarnation, marks)
        for mark in marks & self._members.keys():
            self._members[mark].add(Process(pid, status.start))

    def _inherited(self, status: Status) -> frozenset[str]:
        marks: set[str] = set()
        for ancestor in (status.parent, status.session):
            if ancestor in self._leaders:
                marks.add(self._leaders[ancestor])
            elif ancestor in self._seen:
                marks |= self._seen[ancestor].marks
        return frozenset(marks)

    def _stamped(self, pid: int) -> frozenset[str]:
        stamp = self.kernel.stamp(pid)
        marks = (self._stamps.get(stamp), self._stamps.get(stamp >> _STAMP_NUMBER_BITS))
        return frozenset(mark for mark in marks if mark is not None)


@dataclass(slots=True)
class Member:
    """A living process of a tree."""

    process: Process
    status: Status
    terminated: bool = False
    untouchable: bool = False
    pidfd: int | None = None


class Description(NamedTuple):
    """A process by its whole command line, in which there may be secrets, and its pid."""

    command_line: str
    pid: int


@dataclass(slots=True)
class ProcessTree:
    """Everything that descends from one command, apart from its leader, or all that has its mark.

    The leader is the process that was started; it leads its session and its process group. As
    long as nobody has waited for it, not even its number is reused, nor that of the group.
    """

    table: ProcessTable
    mark: str
    leader: int | None = None
    _members: dict[Process, Member] = field(default_factory=dict[Process, Member])
    _group_terminated: bool = False

    def __post_init__(self) -> None:
        self.table.add(self.mark, self.leader)

    def look(self, since: float | None = None) -> list[Member]:
        """The members that are alive now and that we may signal; `since` as in the table's look."""
        for _ in range(_MOST_ROUNDS):
            gone_unseen = self._update(self.table.look(self.mark, since))
            since = None
            # What such a one has gone on in was not yet there.
            if self._members or not gone_unseen:
                break
        return [member for member in self._members.values() if not member.untouchable]

    def _update(self, known: set[Process]) -> bool:
        """Bring the members up to date; tell whether any has come and gone since the last look."""
        gone_unseen = False
        for process in list(known):
            status = self.table.kernel.status(process.pid)
            if status is None or not status.alive or status.start != process.start:
                gone_unseen |= process not in self._members
                known.discard(process)
                self._forget(process)
                _reap_orphan(process, status)
            elif process in self._members:
                self._members[process].status = status
            else:
                self._members[process] = Member(process, status)
        return gone_unseen

    def untouchable(self) -> list[Member]:
        """Members alive at the last look that the system doesn't let us signal."""
        return [member for member in self._members.values() if member.untouchable]

    def leader_is_untouchable(self) -> bool:
        """Whether the system doesn't let us signal the leader."""
        if self.leader is None:
            return False
        try:
            os.kill(self.leader, 0)
        except OSError as error:
            return isinstance(error, PermissionError)
        return False

    def forget_leader(self) -> None:
        """Stop signalling the leader's group: its pid may be reused from now on."""
        if self.leader is not None:
            self.table.forget_leader(self.leader)
        self.leader = None

    def describe(self, pid: int) -> Description:
        """What a process is to a person who looks for it."""
        return Description(" ".join(self.table.kernel.argv(pid)) or "?", pid)

    def terminate(self, members: list[Member]) -> None:
        """Send SIGTERM to `members` that didn't get it yet, and at first to the leader's group.

        SIGCONT follows: a process that is stopped can't act on a signal.
        """
        first = self._terminate_group()
        for member in members:
            # Not twice: many programs end without their clean-up at the second.
            if first and member.status.group == self.leader:
                member.terminated = True
            elif not member.terminated:
                member.terminated = self._send(member, signal.SIGTERM, signal.SIGCONT)

    def terminate_orphans(self, members: list[Member], *, leader_alive: bool) -> None:
        """Send SIGTERM to those that turned up later and whose parent has ended.

        What a process starts while it handles SIGTERM is its clean-up, and its own business.
        """
        parents = {member.process.pid for member in members}
        if leader_alive and self.leader is not None:
            parents.add(self.leader)
        self.terminate([m for m in members if m.status.parent not in parents])

    def kill(self, members: list[Member]) -> None:
        """Send SIGKILL to the leader's group and to `members`."""
        self._signal_group(signal.SIGKILL)
        for member in members:
            self._send(member, signal.SIGKILL)

    def _terminate_group(self) -> bool:
        if self._group_terminated or self.leader is None:
            return False
        # One call for all of it: no process of the group can fork its way past the signal.
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)
        self._group_terminated = True
        return True

    def _signal_group(self, signum: signal.Signals) -> None:
        # Of a group in which there are only zombies, macOS says EPERM.
        if self.leader is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.leader, signum)

    def _send(self, member: Member, *signums: signal.Signals) -> bool:
        """Send signals to a member that is still the same process; tell whether that was done."""
        if member.pidfd is None:
            member.pidfd = open_pidfd(member.process.pid)
        try:
            # Looked at after the pidfd is there: from then on the pidfd means this process or none.
            status = self.table.kernel.status(member.process.pid)
            if status is not None and status.start == member.process.start:
                for signum in signums:
                    _kill(member, signum)
        except PermissionError:
            member.untouchable = True
        except OSError:
            return False
        finally:
            if member.pidfd is not None and len(self._members) > _MOST_PIDFDS:
                os.close(member.pidfd)
                member.pidfd = None
        return True

    def pidfds(self, members: list[Member]) -> list[int]:
        """File descriptors that become readable as `members` end, valid until the next look."""
        for member in members:
            if member.pidfd is None and len(self._members) <= _MOST_PIDFDS:
                member.pidfd = open_pidfd(member.process.pid)
        return [member.pidfd for member in members if member.pidfd is not None]

    def close(self) -> None:
        """Let go of the tree, dead or alive."""
        self.table.remove(self.mark, self.leader)
        for process in list(self._members):
            self._forget(process)

    def _forget(self, process: Process) -> None:
        member = self._members.pop(process, None)
        if member is not None and member.pidfd is not None:
            os.close(member.pidfd)


def _reap_orphan(process: Process, status: Status | None) -> None:
    # Orphans come to us where we are process 1 of a container, or a subreaper.
    if status is not None and status.start == process.start and status.parent == os.getpid():
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def _kill(member: Member, signum: signal.Signals) -> None:
    if member.pidfd is not None and sys.platform == "linux":
        signal.pidfd_send_signal(member.pidfd, signum)
    else:
        os.kill(member.process.pid, signum)


def _marks(environ: bytes) -> frozenset[str]:
    found = _MARKS.search(environ)
    if found is None:
        return frozenset()
    marks = os.fsdecode(found[1]).split(":")
    return frozenset(marks).union(mark.partition(".")[0] for mark in marks)
