import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from secrets import token_hex

import psutil
import pytest

from cloudops_prefect.kernel import Psutil, Status, this_kernel
from cloudops_prefect.process_tree import (
    MARK_VARIABLE,
    Process,
    ProcessTable,
    ProcessTree,
    marked,
    stamp_of,
)

# Of these tests alone: the same tests may run on this machine for somebody else.
OWNER = token_hex(8)
MARK = f"{OWNER}.1"
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@pytest.fixture
def children():
    started = []

    def start(*argv, mark=None, **options) -> subprocess.Popen:
        env = os.environ if mark is None else {**os.environ, MARK_VARIABLE: mark}
        started.append(subprocess.Popen(argv or ["sleep", "60"], env=env, **options))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def pids(tree: ProcessTree) -> set[int]:
    return {member.process.pid for member in tree.look()}


class TestEvidence:
    @pytest.mark.parametrize("kernel", [this_kernel(), Psutil()])
    def test_a_mark_in_the_environment(self, children, kernel):
        tree = ProcessTree(ProcessTable(kernel), MARK)
        inner, other = children(mark=f"99.1:{MARK}:cd.7"), children(mark=f"{OWNER}.12")
        assert pids(tree) == {inner.pid}
        assert other.pid not in pids(tree)

    @pytest.mark.parametrize("kernel", [this_kernel(), Psutil()])
    def test_an_owners_mark_finds_all_of_its_commands(self, children, kernel):
        tree = ProcessTree(ProcessTable(kernel), OWNER)
        first, second, _ = (
            children(mark=MARK),
            children(mark=f"{OWNER}.2"),
            children(mark=f"{OWNER}c.1"),
        )
        assert pids(tree) == {first.pid, second.pid}

    @pytest.mark.parametrize("kernel", [this_kernel(), Psutil()])
    def test_a_parent_in_the_tree(self, children, kernel):
        leader = children("bash", "-c", "env -i setsid sleep 60 & echo $!; wait", stdout=-1)
        pid = int(leader.stdout.readline())
        tree = ProcessTree(ProcessTable(kernel), MARK, leader.pid)
        assert pids(tree) == {pid}
        os.kill(pid, signal.SIGKILL)

    @pytest.mark.parametrize("kernel", [this_kernel(), Psutil()])
    def test_the_leaders_session(self, children, kernel):
        leader = children(
            "bash", "-c", "(env -i sleep 60 & echo $!)", stdout=-1, start_new_session=True
        )
        pid = int(leader.stdout.readline())
        tree = ProcessTree(ProcessTable(kernel), MARK, leader.pid)
        # The subshell in between belongs to it as long as it lives.
        _until(lambda: pids(tree) == {pid})
        os.kill(pid, signal.SIGKILL)

    def test_a_stamp(self, children):
        child = children()
        table = ProcessTable()
        tree = ProcessTree(table, MARK)
        this_kernel().give_stamp(child.pid, stamp_of(MARK))
        assert pids(tree) == {child.pid}
        assert pids(ProcessTree(ProcessTable(), OWNER)) == {child.pid}
        assert pids(ProcessTree(ProcessTable(), f"{OWNER}.2")) == set()

    def test_a_stamp_is_given_to_those_too_that_are_there_already(self, children):
        child = children("bash", "-c", "bash -c 'sleep 60 & echo $!; wait' & wait", stdout=-1)
        grandchild = int(child.stdout.readline())
        this_kernel().give_stamp(child.pid, stamp_of(MARK))
        stamp = this_kernel().stamp(grandchild)
        os.kill(grandchild, signal.SIGKILL)
        assert stamp == stamp_of(MARK)

    def test_a_stamp_that_is_there_is_kept(self, children):
        child = children()
        for mark in (MARK, f"{OWNER}.2"):
            this_kernel().give_stamp(child.pid, stamp_of(mark))
        assert this_kernel().stamp(child.pid) == stamp_of(MARK)

    def test_a_guard_belongs_to_nobody(self, children):
        tree = ProcessTree(ProcessTable(), MARK)
        child = children("env", "CLOUDOPS_GUARD=cd", "sleep", "60", mark=MARK)
        _until(lambda: this_kernel().argv(child.pid)[:1] == ["sleep"])
        assert pids(tree) == set()

    def test_nobody_is_a_member_without_evidence(self, children):
        tree = ProcessTree(ProcessTable(), MARK)
        children()
        assert pids(tree) == set()

    def test_marks_are_added_to_those_that_we_have(self, monkeypatch):
        monkeypatch.delenv(MARK_VARIABLE, raising=False)
        assert marked(MARK) == MARK
        monkeypatch.setenv(MARK_VARIABLE, "99.1")
        assert marked(MARK) == f"99.1:{MARK}"

    def test_stamps_of_different_commands_differ(self):
        owners = ["0123456789abcdef", "0123456789abcdee"]
        stamps = {stamp_of(f"{owner}.{number}") for owner in owners for number in range(1, 100)}
        assert len(stamps) == 198
        assert max(stamps) < 2**63


class TestIdentity:
    def test_what_was_seen_once_stays_a_member(self, children):
        tree = ProcessTree(ProcessTable(), MARK)
        child = children(sys.executable, "-c", REPLACED, mark=MARK, stdin=-1)
        assert pids(tree) == {child.pid}
        child.stdin.write(b"\n")
        child.stdin.close()
        _until(lambda: this_kernel().argv(child.pid)[:1] == ["sleep"])
        assert pids(tree) == {child.pid}

    def test_a_zombie_is_gone(self, children):
        tree = ProcessTree(ProcessTable(), MARK)
        child = children(mark=MARK)
        assert pids(tree) == {child.pid}
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert pids(tree) == set()

    def test_a_name_with_parentheses_and_spaces_is_read(self, children, tmp_path):
        odd = tmp_path / "a) S 1 (b"
        odd.symlink_to("/usr/bin/sleep")
        child = children(str(odd), "60")
        status = this_kernel().status(child.pid)
        assert status is not None
        assert status.parent == os.getpid()

    def test_kernels_agree(self, children):
        child = children(start_new_session=True)
        linux, elsewhere = this_kernel().status(child.pid), Psutil().status(child.pid)
        for status in (linux, elsewhere):
            assert isinstance(status, Status)
            assert (status.parent, status.session) == (os.getpid(), child.pid)
            assert status.group == child.pid
            assert status.alive
        _until(lambda: this_kernel().argv(child.pid) != [])
        assert this_kernel().argv(child.pid) == Psutil().argv(child.pid) == ["sleep", "60"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose a pid")
    def test_a_reused_pid_is_never_signalled(self, children):
        def reuse() -> tuple[ProcessTree, list, subprocess.Popen] | None:
            tree = ProcessTree(ProcessTable(), MARK)
            first = children(mark=MARK)
            members = tree.look()
            first.kill()
            first.wait()
            # The start times of two processes differ by ticks of 10 ms.
            ended = time.monotonic()
            _until(lambda: time.monotonic() > ended + 0.02)
            second = _with_pid(first.pid, children, "cat", stdin=-1, stdout=-1)
            return None if second is None else (tree, members, second)

        tree, members, second = _once_there_is(reuse)
        tree.kill(members)
        tree.terminate(members)
        assert pids(tree) == set()
        answer, _ = second.communicate(b"alive")
        assert answer == b"alive"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose a pid")
    def test_a_reused_pid_is_looked_at_again(self, children):
        def reuse() -> tuple[ProcessTree, subprocess.Popen] | None:
            tree = ProcessTree(ProcessTable(), MARK)
            stranger = children()
            assert pids(tree) == set()
            stranger.kill()
            stranger.wait()
            member = _with_pid(stranger.pid, children, mark=MARK)
            return None if member is None else (tree, member)

        tree, member = _once_there_is(reuse)
        assert pids(tree) == {member.pid}

    def test_a_look_at_what_is_not_there_any_more(self):
        assert this_kernel().status(2**22 + 1) is None
        assert this_kernel().environ(2**22 + 1) == b""
        assert this_kernel().argv(2**22 + 1) == []
        assert this_kernel().stamp(2**22 + 1) == 0
        assert Process(1, 2) == (1, 2)


class TestSignals:
    def test_untouchable_members_are_set_aside(self, children, monkeypatch):
        tree = ProcessTree(ProcessTable(), MARK)
        child = children(mark=MARK)

        def refuse(*_) -> None:
            raise PermissionError

        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
        tree.kill(tree.look())
        assert tree.look() == []
        assert [member.process.pid for member in tree.untouchable()] == [child.pid]

    def test_a_description_is_the_whole_command_line_and_the_pid(self, children):
        child = children("sh", "-c", "sleep 60\n" + "#" * 200, mark=MARK)
        tree = ProcessTree(ProcessTable(), MARK)
        _until(lambda: len(this_kernel().argv(child.pid)) == 3)
        description = tree.describe(child.pid)
        assert description == ("sh -c sleep 60\n" + "#" * 200, child.pid)

    def test_many_members_do_not_take_all_file_descriptors(self, children):
        tree = ProcessTree(ProcessTable(), MARK)
        for _ in range(80):
            children(mark=MARK)
        before = open_fds()
        tree.terminate(tree.look())
        assert open_fds() - before <= 65
        tree.close()
        assert open_fds() == before


REPLACED = "import os; input(); os.execve('/bin/sleep', ['sleep', '60'], {})"


def _until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end


def _once_there_is(attempt):
    """Tries again with other processes, until none of the machine's took what was wanted."""
    end = time.monotonic() + 60
    while (found := attempt()) is None:
        assert time.monotonic() < end, "another process took the pid each time"
    return found


def _with_pid(pid: int, start, *argv, **options) -> subprocess.Popen | None:
    """Starts a process that has this pid; returns None if another process took it."""
    for _ in range(200):
        if psutil.pid_exists(pid):
            return None
        LAST_PID.write_text(str(pid - 1))
        child = start(*argv, **options)
        if child.pid == pid:
            return child
        child.kill()
        child.wait()
    return None
