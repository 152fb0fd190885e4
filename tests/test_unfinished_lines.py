"""Lines that are not finished yet: prompts and progress bars, where people look at them."""

import json
import os
import re
import sys
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from engines import shell, until
from hypothesis import given
from hypothesis import strategies as st
from in_process import Cloudops
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from terminals import terminal

from cloudops_prefect import ExecutionEngine, ExecutionPlan, UnfinishedLine
from cloudops_prefect.api_logs import LOG_PAGE_SIZE, LogReader
from cloudops_prefect.framing import LineFramer, LogLines, UnfinishedLines
from cloudops_prefect.journal import Chunk
from cloudops_prefect.lines import follow_groups
from cloudops_prefect.output import OutputLog, OutputReader
from cloudops_prefect.output_feed import UNFINISHED_CHARACTERS, OutputFeed

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[1]
BOUND = 30
UNFINISHED = {"cloudops_unfinished.stdout", "cloudops_unfinished.stderr"}


def chunk(data: bytes, kind="stdout") -> Chunk:
    chunk.time += 1000
    return Chunk(kind, data, chunk.time)


chunk.time = 1_700_000_000_000_000_000


class Clock:
    """Lines of a log, and what is to be shown of them at which second."""

    def __init__(self, gap=lambda times: 1.0) -> None:
        self.lines = LogLines()
        self.shown = UnfinishedLines(self.lines, gap)

    def at(self, now: float, *chunks: Chunk) -> list[tuple[str, str | None]]:
        for one in chunks:
            self.lines.feed(one)
        return [(group.kind, group.unfinished) for group in self.shown.due(now)]


class TestWhatIsShown:
    def test_a_line_that_stays_unfinished_is_shown_once(self):
        clock = Clock()
        assert clock.at(0, chunk(b"Waiting for lock")) == []
        assert clock.shown.are_pending(0.1)
        assert clock.at(0.3) == [("stdout", "Waiting for lock")]
        assert not clock.shown.are_pending(5)
        assert clock.at(5) == []
        assert clock.at(6, chunk(b" done\n")) == []

    def test_a_line_that_is_finished_at_once_is_not_shown(self):
        clock = Clock()
        assert clock.at(0, chunk(b"Wait")) == []
        assert clock.at(0.1, chunk(b"ing\n")) == []
        assert clock.at(9) == []

    def test_of_a_progress_bar_the_last_state_is_shown_but_not_each(self):
        clock = Clock()
        shown = [
            text for step in range(41) for _, text in clock.at(step / 4, chunk(b"\r%3d%%" % step))
        ]
        assert shown[0] == "  1%"
        assert 8 <= len(shown) <= 11

    def test_each_stream_has_its_own_and_a_new_line_is_shown_soon(self):
        clock = Clock(lambda times: 30.0)
        clock.at(0, chunk(b"out"), chunk(b"err", "stderr"))
        assert clock.at(1) == [("stdout", "out"), ("stderr", "err")]
        clock.at(2, chunk(b" 1\nnext"))
        assert clock.at(3) == [("stdout", "next")]

    def test_a_character_that_is_not_all_there_waits(self):
        clock = Clock()
        clock.at(0, chunk("Warten…".encode()[:-1]))
        assert clock.at(1) == [("stdout", "Warten")]

    def test_what_is_blank_is_not_shown(self):
        clock = Clock()
        clock.at(0, chunk(b"\r"))
        assert clock.at(1) == []

    @given(st.lists(st.sampled_from([b"a", b"\r", b"\n", "ü".encode()[:1], b"\xbc"]), max_size=20))
    def test_it_is_what_the_line_would_be_if_it_ended_here(self, parts):
        framer = LineFramer()
        for part in parts:
            framer.feed(part)
            text = framer.unfinished() if framer.is_unfinished else ""
            assert text == framer.unfinished()
        rest = framer.flush()
        assert text.rstrip("\ufffd") == "".join(rest).rstrip("\ufffd") if parts else not rest


@pytest.fixture
def log(tmp_path):
    with OutputLog.open(tmp_path / f"{uuid4()}.log", max_output_bytes=1000) as log:
        yield log


async def test_it_is_followed_only_where_that_is_wanted(log):
    async def follow(wanted: bool) -> None:
        groups = follow_groups(log.path, unfinished=wanted)
        async with aclosing(groups):
            async for group in groups:
                got[wanted].append(group.unfinished or group.lines)
                if group.unfinished == "Waiting":
                    log.write("stdout", b" is over\n")
                    log.close()

    got: dict[bool, list] = {True: [], False: []}
    log.write("stdout", b"first\nWaiting")
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, True)
            tasks.start_soon(follow, False)
    assert got == {
        True: [["first"], "Waiting", ["Waiting is over"]],
        False: [["first"], ["Waiting is over"]],
    }


async def test_whole_lines_without_end_show_nothing_unfinished(log):
    async def write() -> None:
        for _ in range(200):
            log.write("stdout", b"half a li")
            log.write("stdout", b"ne\n" * 1000)
            await anyio.lowlevel.checkpoint()
        log.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        groups = follow_groups(log.path, unfinished=True)
        assert [one async for one in groups if one.unfinished is not None] == []


# The API


async def records_of(feed: OutputFeed, is_there) -> list[LogCreate]:
    """What a feed has to send until that is there."""
    records: list[LogCreate] = []
    with anyio.fail_after(BOUND):
        while not is_there(records):
            records += feed.next_records()
            await anyio.sleep(0.01)
    return records


def feed_of(log: OutputLog, budget: int = 1_000_000) -> OutputFeed:
    return OutputFeed(log.path, uuid4(), uuid4(), budget, OutputReader(log.path))


async def test_the_api_gets_it_under_a_name_of_its_own_and_then_the_whole_line(log):
    feed = feed_of(log)
    log.write("stdout", b"before\nWaiting\0")
    log.write("stderr", b"\r 5%")
    first = await records_of(feed, lambda records: len(records) == 3)
    assert [(one.name, one.message) for one in first] == [
        ("cloudops.stdout", "before"),
        ("cloudops_unfinished.stdout", "Waiting\N{SYMBOL FOR NULL}"),
        ("cloudops_unfinished.stderr", " 5%"),
    ]
    log.write("stdout", b" is over\n")
    log.write("stderr", b"\r100%")
    log.close()
    feed.ended = True
    rest = await records_of(feed, lambda _: feed.drained)
    assert [(one.name, one.message) for one in rest] == [
        ("cloudops.stdout", "Waiting\N{SYMBOL FOR NULL} is over"),
        ("cloudops.stderr", "100%"),
    ]
    times = [one.timestamp for one in (*first, *rest)]
    assert times == sorted({*times})


async def test_of_a_long_one_the_api_gets_the_end(log):
    log.write("stdout", b"x" * 10_000 + b"end")
    (record,) = await records_of(feed_of(log), lambda records: records)
    assert len(record.message) == UNFINISHED_CHARACTERS
    assert (record.message[:2], record.message[-4:]) == ("…x", "xend")


async def test_it_costs_of_the_budget_and_never_more_than_there_is(log):
    feed = feed_of(log, budget=20)
    log.write("stdout", b"Waiting")
    await records_of(feed, lambda records: records)
    assert feed.budget == 13
    log.write("stdout", b" for a long time")
    feed.unfinished._gap = lambda times: 0.0
    assert feed.next_records() == feed.next_records() == []
    assert (feed.budget, feed.drained) == (13, False)


@pytest.mark.server
async def test_a_reader_gets_past_pages_of_nothing_else(api):
    flow_run_id, task_run_id, now = uuid4(), uuid4(), datetime.now(UTC)

    def record(name: str, number: int) -> LogCreate:
        return LogCreate(
            name=name,
            level=20,
            message=str(number),
            timestamp=now + timedelta(seconds=number),
            flow_run_id=flow_run_id,
            task_run_id=task_run_id,
        )

    count = 2 * LOG_PAGE_SIZE + 1
    async with get_client() as client:
        unfinished = [record("cloudops_unfinished.stdout", number) for number in range(count)]
        await client.create_logs([*unfinished, record("cloudops.stdout", count)])
        reader = LogReader(flow_run_id, task_run_id)
        assert [one.message for one in await reader.read(client)] == [str(count)]
        assert await reader.read(client) == []
        reader = LogReader(flow_run_id, task_run_id, unfinished=True)
        read = [one.message for _ in range(4) for one in await reader.read(client)]
        assert read == [str(number) for number in range(count + 1)]


@pytest.mark.server
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_run_shows_it_and_its_events_and_result_have_the_line(
    api, config, tmp_path, elsewhere
):
    gate = tmp_path / "gate"
    text = f"printf 'Waiting for lock…'; until test -e {gate}; do sleep 0.02; done; echo ' got it'"
    plan = ExecutionPlan(commands=[shell(text)])
    other = config.model_copy(update={"log_dir": tmp_path / "elsewhere"})
    async with ExecutionEngine(config) as engine, ExecutionEngine(other) as second:
        execution_id = await engine.execute_plan(plan)
        watching = second if elsewhere else engine
        seen = []
        async for event in watching.stream(execution_id, unfinished_lines=True):
            if isinstance(event, UnfinishedLine):
                assert (event.stream, event.line) == ("stdout", "Waiting for lock…")
                assert event.request_id == plan.commands[0].id
                await until(lambda: has_record(execution_id))
                gate.touch()
            seen.append(event)
        kinds = [event.event_type for event in seen if event.event_type != "progress"]
        assert kinds == ["started", "unfinished", "stdout", "completed"]
        plain = [event async for event in watching.stream(execution_id)]
        assert [event.line for event in plain if event.event_type == "stdout"] == [
            "Waiting for lock… got it"
        ]
        assert {event.event_type for event in plain} == {
            "progress", "started", "stdout", "completed",
        }  # fmt: skip
        (result,) = (await watching.wait(execution_id)).results
        assert result.stdout == "Waiting for lock… got it\n"
        assert await watching.read_logs(execution_id) == result.stdout


async def has_record(flow_run_id) -> bool:
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    async with get_client() as client:
        logs = await client.read_logs(wanted)
    return [one.message for one in logs if one.name in UNFINISHED] == ["Waiting for lock…"]


# The terminal


@pytest.fixture
def env(prefect_api, tmp_path) -> dict[str, str]:
    ours = {"PREFECT_API_URL": prefect_api, "CLOUDOPS_LOG_DIR": str(tmp_path / "logs")}
    return os.environ | ours | {"PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1"}


@pytest.fixture
def gate(tmp_path) -> Path:
    return tmp_path / "gate"


def cloudops(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "cloudops_prefect", *arguments]


def waiting(gate: Path, shown: str = "printf 'Waiting…'", then: str = "echo ' over'") -> str:
    return f"{shown}; until test -e {gate}; do sleep 0.05; done; {then}"


@pytest.mark.server
@pytest.mark.parametrize("stream", ["", " >&2"])
def test_a_terminal_shows_a_single_commands(env, gate, stream):
    text = f"{{ echo first; {waiting(gate)}; echo last; }}{stream}"
    with terminal(cloudops("shell", text), env) as screen:
        screen.until(lambda: screen.line("Waiting…"))
        assert screen.lines == ["first", "Waiting…"]
        gate.touch()
        assert screen.wait() == 0
        assert screen.lines[:3] == ["first", "Waiting… over", "last"]
        assert sum("Waiting" in line for line in screen.lines) == 1


@pytest.mark.server
def test_a_terminal_shows_a_progress_bar_in_one_row(env, gate, tmp_path):
    more = tmp_path / "more"
    half = f"printf '\\r 10%%'; {waiting(more, 'printf %s', ':')}; printf '\\r 50%%'"
    text = waiting(gate, half, "printf '\\r100%%\\n'; echo done")
    with terminal(cloudops("shell", text), env) as screen:
        screen.until(lambda: screen.line(" 10%"))
        more.touch()
        screen.until(lambda: screen.line(" 50%"))
        assert screen.lines == [" 50%"]
        gate.touch()
        assert screen.wait() == 0
        assert screen.lines[:2] == ["100%", "done"]


@pytest.mark.server
def test_what_is_wider_than_the_screen_takes_one_row(env, gate):
    text = waiting(gate, "printf 'x%.0s' $(seq 200); printf end", "echo ' over'")
    with terminal(cloudops("shell", text), env, columns=40) as screen:
        screen.until(lambda: any(line.endswith("end") for line in screen.lines))
        (row,) = screen.lines
        assert re.fullmatch("…x{35}end", row)
        gate.touch()
        assert screen.wait() == 0
        assert screen.lines[0] == "x" * 40


@pytest.mark.server
def test_other_lines_are_printed_above_it(env, gate, tmp_path):
    other, path = tmp_path / "other", tmp_path / "plan.json"
    commands = [
        {"name": "one", "run": waiting(gate)},
        {"name": "two", "run": f"{waiting(other, ':')}; echo more"},
    ]
    path.write_text(json.dumps({"strategy": "parallel", "commands": commands}))
    with terminal(cloudops("run", "--output", "interleaved", path), env) as screen:
        screen.until(lambda: screen.line("[one] Waiting…"))
        other.touch()
        screen.until(lambda: screen.line("[two] -- completed"))
        screen.until(lambda: screen.lines[-1] == "[one] Waiting…")
        assert screen.lines[:2] == ["[two]  over", "[two] more"]
        gate.touch()
        assert screen.wait() == 0
        assert "[one] Waiting… over" in screen.lines
        assert sum("Waiting" in line for line in screen.lines) == 1


@pytest.mark.server
def test_a_live_view_shows_it_beside_its_command(env, gate, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"commands": [{"name": "lock", "run": waiting(gate)}]}))
    with terminal(cloudops("run", path), env) as screen:
        screen.until(lambda: any(re.search(r" lock .*Waiting…$", line) for line in screen.lines))
        gate.touch()
        assert screen.wait() == 0


@pytest.mark.server
def test_followed_logs_and_other_screens_show_it_and_leave_nothing(
    env, gate, prefect_api, tmp_path
):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"commands": [{"name": "lock", "run": waiting(gate)}]}))
    with terminal(cloudops("run", path), env) as screen:
        screen.until(lambda: any("Waiting…" in line for line in screen.lines))
        (newest,) = Cloudops(prefect_api, tmp_path / "logs").json("list", "--limit", "1")
        watch = cloudops("watch", "--output", "interleaved", newest["id"])
        with terminal(watch, env) as left:
            left.until(lambda: left.line("[lock] Waiting…"))
            left.interrupt()
            assert left.wait() == 130
            assert not any("Waiting" in line for line in left.lines)
        elsewhere = env | {"CLOUDOPS_LOG_DIR": str(tmp_path / "elsewhere")}
        with terminal(cloudops("logs", "-f", newest["id"]), elsewhere) as logs:
            logs.until(lambda: logs.line("[lock] Waiting…"))
            gate.touch()
            assert logs.wait() == 0
            assert logs.lines[0] == "[lock] Waiting… over"
        assert screen.wait() == 0


@pytest.mark.server
def test_a_pipe_gets_whole_lines_only(prefect_api, tmp_path):
    text = "printf 'Waiting…'; sleep 0.7; echo ' over'"
    done = Cloudops(prefect_api, tmp_path / "logs")("shell", text)
    assert done.stdout == "Waiting… over\n"
    assert "Waiting" not in done.stderr
