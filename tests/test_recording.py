"""Waiting until the API has recorded how task runs ended."""

from types import SimpleNamespace
from uuid import uuid4

import anyio
import pytest
from prefect.states import Completed

from cloudops_prefect.recording import RESTART, TaskRunEnd, tell_lost_again, until_recorded

pytestmark = pytest.mark.anyio


class FailsOnce:
    """An API that answers the first question with an error, and then has recorded everything."""

    def __init__(self) -> None:
        self.asked = 0

    async def read_task_runs(self, *, task_run_filter, limit):
        self.asked += 1
        if self.asked == 1:
            raise ConnectionResetError
        return [SimpleNamespace(id=one) for one in task_run_filter.id.any_]


async def test_a_look_that_fails_is_not_the_last_one():
    end = TaskRunEnd(uuid4(), Completed(), lambda: None)
    ends = {end.task_run_id: end}
    await until_recorded(FailsOnce(), ends)
    assert ends == {}


class Restarted:
    """An API that has recorded nothing."""

    async def read_task_runs(self, **_):
        return []


async def test_only_what_should_have_been_recorded_is_told_again():
    told = []
    now = anyio.current_time()
    for when in (now - RESTART - 1, now):
        end = TaskRunEnd(uuid4(), Completed(), lambda when=when: told.append(when), told=when)
        await tell_lost_again(Restarted(), {end.task_run_id: end})
    assert told == [now - RESTART - 1]
