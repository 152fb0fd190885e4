"""Signs of life: whose are left to the next engine, and whose hold nobody up."""

import os
import socket
from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

import pytest

from cloudops_prefect.liveness import (
    SUFFIX,
    Sign,
    leave_line,
    sign_of_life,
    signs_of_the_dead,
)

API = "http://somewhere/api"


@pytest.fixture
def sign():
    return Sign(uuid4(), 1, API)


def leave(directory, sign) -> None:
    with suppress(ProcessLookupError), sign_of_life(directory, sign):
        raise ProcessLookupError


def test_only_what_has_died_is_found_and_once(tmp_path, sign):
    leave(tmp_path, sign)
    with sign_of_life(tmp_path, Sign(uuid4(), 1, API)):
        assert list(signs_of_the_dead(tmp_path, "another")) == []
        assert list(signs_of_the_dead(tmp_path, API)) == [sign]
        assert list(signs_of_the_dead(tmp_path, API)) == []


def test_a_sign_that_cannot_be_removed_disturbs_nobody(tmp_path, sign):
    directory = tmp_path / "signs"
    with sign_of_life(directory, sign):
        directory.rename(tmp_path / "elsewhere")
        directory.touch()
    assert list(signs_of_the_dead(tmp_path / "elsewhere", API)) == [sign]


def test_what_a_process_has_left_besides_is_there_line_by_line(tmp_path, sign):
    leave_line(sign.flow_run_id, "before it is there")
    with suppress(ProcessLookupError), sign_of_life(tmp_path, sign):
        leave_line(sign.flow_run_id, "one")
        leave_line(uuid4(), "another's")
        leave_line(sign.flow_run_id, "two")
        raise ProcessLookupError
    assert list(signs_of_the_dead(tmp_path, API, uuid4())) == []
    left = replace(sign, lines=("one", "two"))
    assert list(signs_of_the_dead(tmp_path, API, sign.flow_run_id)) == [left]


def test_a_forked_child_that_lives_on_is_no_sign_of_life(tmp_path, sign):
    ours, childs = socket.socketpair()
    with ours, childs:
        with suppress(ProcessLookupError), sign_of_life(tmp_path, sign):
            if (child := os.fork()) == 0:
                ours.close()
                childs.send(b"forked")
                childs.recv(1)
                os._exit(0)
            ours.recv(6)
            raise ProcessLookupError
        assert list(signs_of_the_dead(tmp_path, API)) == [sign]
    os.waitpid(child, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_a_sign_of_another_user_holds_nobody_up(tmp_path, sign):
    foreign = tmp_path / f"{uuid4()}{SUFFIX}"
    foreign.write_text(f"1 {API}")
    os.chown(foreign, 65534, 65534)
    leave(tmp_path, sign)
    assert list(signs_of_the_dead(tmp_path, API)) == [sign]
    assert foreign.exists()
