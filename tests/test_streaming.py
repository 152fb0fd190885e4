"""The events of executions, out of logs that are there; no server is needed to see them."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from uuid import uuid4

import anyio
import pytest
from engines import flat

from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.events import line_events
from cloudops_prefect.models import (
    DependencyGraphStrategy,
    ExecutionPlan,
    ExecutionRequest,
    ExecutionResult,
    ParallelStrategy,
    ShellCommand,
)
from cloudops_prefect.output import OutputLog
from cloudops_prefect.sources import Ids, Start
from cloudops_prefect.streaming import command_events, plan_events

pytestmark = pytest.mark.anyio

LINES = 2000
BOUND = 20


class Ended:
    """A run whose commands have all printed much and ended."""

    def __init__(self, directory, count):
        commands = [ExecutionRequest(command=ShellCommand(command="print")) for _ in range(count)]
        self.plan = ExecutionPlan(strategy=ParallelStrategy(), commands=commands)
        self.ids = {index: uuid4() for index in range(count)}
        self.directory = directory
        for execution_id in self.ids.values():
            with OutputLog.open(self.path(execution_id), max_output_bytes=1000) as log:
                for number in range(LINES):
                    log.write(("stdout", "stderr")[number % 2], b"%d\n" % number)

    def path(self, execution_id):
        return self.directory / f"{execution_id}.log"

    async def started(self):
        return {index: Start(id_, None) for index, id_ in self.ids.items()}

    async def ended(self):
        return datetime.now(UTC)

    async def result(self, index):
        request_id = self.plan.commands[index].id
        return ExecutionResult(id=request_id, execution_id=self.ids[index], status="completed")

    def lines(self, index, ids):
        return line_events(self.path(ids.execution_id), ids.execution_id, ids.request_id)

    def events(self):
        return flat(plan_events(self.plan, uuid4(), ExecutionConfig(), self))


async def test_a_command_has_its_start_every_line_and_its_end(tmp_path):
    run = Ended(tmp_path, 1)
    [request] = run.plan.commands
    events = command_events(request, Ids(run.ids[0], request.id), ExecutionConfig(), run)
    with anyio.fail_after(BOUND):
        first, *lines, last = [event async for event in flat(events)]
    assert (first.event_type, last.event_type) == ("started", "completed")
    assert [(event.event_type, event.line) for event in lines] == [
        (("stdout", "stderr")[number % 2], str(number)) for number in range(LINES)
    ]


async def test_the_lines_of_many_commands_come_once_and_each_commands_in_order(tmp_path):
    run = Ended(tmp_path, 5)
    lines, kinds = defaultdict(list), []
    with anyio.fail_after(BOUND):
        async for event in run.events():
            if event.event_type in {"stdout", "stderr"}:
                lines[event.execution_id].append(event.line)
            else:
                kinds.append(event.event_type)
    expected = [str(number) for number in range(LINES)]
    assert lines == dict.fromkeys(run.ids.values(), expected)
    assert kinds[0] == "progress"
    assert kinds.count("started") == 5
    ends = [kind for kind in kinds[1:] if kind != "started"]
    assert ends == ["completed", "progress"] * 5, "each end is counted at once"


async def test_what_waited_for_a_command_is_told_after_its_end_though_that_is_known_late(tmp_path):
    class KnownLate(Ended):
        asked = 0

        async def result(self, index):
            self.asked += index == 0
            return None if index == 0 and self.asked < 4 else await super().result(index)

    run = KnownLate(tmp_path, 3)
    run.plan = run.plan.model_copy(
        update={"strategy": DependencyGraphStrategy(dependencies={1: [0], 2: [0, 1]})}
    )
    with anyio.fail_after(BOUND):
        told = [event async for event in run.events() if event.event_type != "progress"]
    order = list(dict.fromkeys(event.execution_id for event in told))
    assert order == [run.ids[0], run.ids[1], run.ids[2]]
    ends = [number for number, event in enumerate(told) if event.event_type == "completed"]
    starts = [number for number, event in enumerate(told) if event.event_type == "started"]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))


async def test_who_breaks_off_while_commands_have_lines_to_hand_over_is_told_nothing(tmp_path):
    run = Ended(tmp_path, 5)
    before = asyncio.all_tasks()
    events = run.events()
    async for event in events:
        if event.event_type == "stdout":
            break
    await asyncio.sleep(0)
    await events.aclose()
    left = asyncio.all_tasks() - before
    ended = await asyncio.gather(*left, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended
