import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudops_prefect.framing import LineFramer, LogLines
from cloudops_prefect.journal import Chunk
from cloudops_prefect.lines import follow_groups, follow_lines, read_lines
from cloudops_prefect.output import OutputLog, OutputReader

pytestmark = pytest.mark.anyio

BOUND = 20


def framed(*chunks, max_line_bytes=65_536):
    framer = LineFramer(max_line_bytes)
    lines = [line for chunk in chunks for line in framer.feed(chunk)]
    return lines + framer.flush()


def slow_reference(data, limit):
    """What a terminal of unlimited width leaves of each line, byte by byte."""
    lines = []
    state, returned = b"", False
    for number in data:
        byte = bytes([number])
        if byte == b"\n":
            lines.append(state)
            state, returned = b"", False
        elif byte == b"\r":
            returned = True
        else:
            state, returned = (byte if returned else state + byte), False
            while len(state) > limit:
                cut = next(
                    (c for c in range(limit, max(limit - 4, 0), -1) if state[c] & 0xC0 != 0x80),
                    limit,
                )
                lines.append(state[:cut])
                state = state[cut:]
    if state:
        lines.append(state)
    return [line.decode("utf-8", "replace") for line in lines]


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "logs" / "one.log"


def open_files():
    return len(list(Path("/dev/fd").iterdir()))


def opened(path, **options):
    return OutputLog.open(path, max_output_bytes=1_000_000, **options)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\nb", ["a", "b"]),
        (b"\n" * 10_000, [""] * 10_000),
        (b"a\r\nb\r\n\r\n", ["a", "b", ""]),
        (b"10%\r50%\r100%\n", ["100%"]),
        (b"10%\r50%\r100%\r\n", ["100%"]),
        (b"100%\r\r\n", ["100%"]),
        (b"10%\r50%", ["50%"]),
        (b"50%\r", ["50%"]),
        (b"\r\r\n\r", [""]),
        (b"\rspinner\r\r\rdone\nnext", ["done", "next"]),
        (b"a\0b\n\0\n", ["a\0b", "\0"]),
        (b"\xff\xfe ok\n", ["\ufffd\ufffd ok"]),
        ("grün €uro 🎉\n".encode(), ["grün €uro 🎉"]),
        ("cut 🎉".encode()[:-1], ["cut \ufffd"]),
        (b"\x0b\x0c\x1c\xc2\x85\xe2\x80\xa8\n", ["\x0b\x0c\x1c\x85\u2028"]),
    ],
)
def test_lines_are_the_same_at_each_split(data, lines):
    assert framed(data) == lines
    assert framed(*(data[i : i + 1] for i in range(len(data)))) == lines
    for cut in range(min(len(data), 40)):
        assert framed(data[:cut], data[cut:]) == lines


ALPHABET = [b"a", b"b", b"\n", b"\r", b"\r\n", b"\xff", b"\0", "é".encode(), "🎉".encode(), b"\x80"]


@settings(max_examples=500)
@given(
    data=st.lists(st.sampled_from(ALPHABET), max_size=60).map(b"".join),
    cuts=st.lists(st.integers(0, 120), max_size=10),
    limit=st.sampled_from([1, 2, 4, 5, 9, 65_536]),
)
def test_any_split_and_limit_gives_what_a_byte_at_a_time_gives(data, cuts, limit):
    places = sorted(min(cut, len(data)) for cut in cuts)
    chunks = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    assert framed(*chunks, max_line_bytes=limit) == slow_reference(data, limit)


@pytest.mark.parametrize("size", [1, 7, 4096, 65_536, 10_000_000])
def test_seq_is_exactly_200_000_lines(size):
    data = subprocess.run(["seq", "1", "200000"], capture_output=True, check=True).stdout
    lines = framed(*(data[i : i + size] for i in range(0, len(data), size)))
    assert lines == [str(number) for number in range(1, 200_001)]


def test_a_line_without_end_comes_in_pieces_and_needs_bounded_memory():
    framer = LineFramer()
    chunk = "né".encode() * 20_000
    pieces = []
    for _ in range(50):
        pieces += framer.feed(chunk)
        assert sum(map(len, framer._parts)) <= 65_536
    pieces += framer.flush()
    assert "".join(pieces) == "né" * 1_000_000
    assert max(len(piece.encode()) for piece in pieces) <= 65_536


def test_a_line_of_100_mb_in_one_chunk_is_cut_in_no_time():
    pieces = framed(b"x" * 100_000_000 + b"\n")
    assert sum(map(len, pieces)) == 100_000_000
    assert max(map(len, pieces)) == 65_536


def test_a_line_of_exactly_the_limit_is_one_line():
    line = b"x" * 65_536
    assert framed(line + b"\r\n") == [line.decode()]
    assert framed(line, b"\r", b"\n") == [line.decode()]
    assert framed(line + b"y\n") == [line.decode(), "y"]


def test_an_endless_progress_bar_is_one_line_and_needs_bounded_memory():
    framer = LineFramer()
    for number in range(100_000):
        assert framer.feed(b"\r%d of 100000" % number) == []
        assert sum(map(len, framer._parts)) < 100
    assert framer.feed(b"\ndone\n") == ["99999 of 100000", "done"]


async def collect(path, **options):
    with anyio.fail_after(BOUND):
        return [(kind, line) async for kind, line, _ in follow_lines(path, **options)]


async def test_a_reader_that_comes_late_gets_everything_from_the_first_line(log_path):
    with opened(log_path) as log:
        log.write("stdout", b"one\ntw")
        log.write("stderr", b"err")
        log.note("remark")
        log.write("stdout", b"o\nrest")
    assert await collect(log_path) == [
        ("stdout", "one"),
        ("note", "[cloudops] remark"),
        ("stdout", "two"),
        ("stdout", "rest"),
        ("stderr", "err"),
    ]


async def test_lines_come_while_the_log_is_written_before_it_exists(log_path):
    got = []

    async def follow():
        async for kind, line, arrived in follow_lines(log_path):
            got.append(line)
            assert kind == "stdout"
            assert abs((datetime.now(UTC) - arrived).total_seconds()) < 5

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        with anyio.fail_after(BOUND), opened(log_path) as log:
            for number in range(20):
                log.write("stdout", b"%d\n" % number)
                while len(got) <= number:
                    await anyio.sleep(0.001)
    assert got == [str(number) for number in range(20)]


async def test_a_writer_in_another_thread_and_loop_wakes_its_readers(log_path, monkeypatch):
    # Who is not woken would look again after an hour.
    monkeypatch.setattr("cloudops_prefect.lines._POLL_WITH_BELL", 3600)
    turns = 30
    got = []
    seen = threading.Semaphore(0)

    def wait_for_listener(log):
        deadline = time.monotonic() + BOUND
        while not log._bell._waiting:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def write():
        with opened(log_path) as log:
            for _ in range(turns):
                wait_for_listener(log)
                log.write("stdout", b"x\n")
                assert seen.acquire(timeout=BOUND)

    async def follow():
        async for _, line, _ in follow_lines(log_path):
            got.append(line)
            seen.release()

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.to_thread.run_sync(write)
    assert got == ["x"] * turns


async def test_a_reader_that_was_woken_sleeps_again(log_path, monkeypatch):
    reads = 0
    read = OutputReader.read

    def counted(self, *arguments):
        nonlocal reads
        reads += 1
        return read(self, *arguments)

    monkeypatch.setattr(OutputReader, "read", counted)
    follower = follow_lines(log_path)
    async with aclosing(follower):
        with opened(log_path) as log:
            for _ in range(3):
                log.write("stdout", b"x\n")
                await anext(follower)
            before = reads
            with anyio.move_on_after(0.5):
                await anext(follower)
    assert reads - before <= 5


WRITER = """
import os
import sys
from pathlib import Path
from cloudops_prefect.output import OutputLog
with OutputLog.open(Path(sys.argv[1]), max_output_bytes=100) as log:
    for line in sys.stdin:
        if line == "die\\n":
            # As a SIGKILL leaves it: without an end record.
            os._exit(9)
        log.write("stdout", line.encode())
        print("written", flush=True)
"""


def start_writer(path):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


async def test_a_writer_in_another_process_is_followed_to_its_end(log_path):
    with start_writer(log_path) as writer:
        follower = follow_lines(log_path)
        async with aclosing(follower):
            with anyio.fail_after(BOUND):
                for number in range(5):
                    writer.stdin.write(f"{number}\n")
                    assert (await anext(follower))[1] == str(number)
                writer.stdin.close()
                with pytest.raises(StopAsyncIteration):
                    await anext(follower)


async def test_a_writer_that_died_ends_the_reading_once_it_is_known(log_path):
    with start_writer(log_path) as writer:
        writer.stdin.write("one\n")
        assert writer.stdout.readline() == "written\n"
        writer.stdin.write("die\n")
        assert writer.wait(BOUND) == 9
    with log_path.open("ab") as log:
        log.write(b"two\nwithout a record")

    async def still_running():
        return False

    lines = [("stdout", "one"), ("stdout", "two"), ("stdout", "without a record")]
    assert await collect(log_path, still_running=still_running) == lines
    assert await collect(log_path, still_running=lambda: False) == lines
    assert [line for group in read_lines(log_path) for line in group.lines] == [
        line for _, line in lines
    ]


async def test_following_what_never_comes_ends_once_it_is_known_not_to(log_path):
    answers = iter([True, False])
    assert await collect(log_path, still_running=lambda: next(answers)) == []


async def test_a_second_try_is_read_after_the_first_and_alone_from_its_start(log_path):
    with opened(log_path) as log:
        log.write("stdout", b"first, no newline")
    with opened(log_path) as log:
        log.write("stdout", b"second\n")
    assert await collect(log_path) == [("stdout", "first, no newline"), ("stdout", "second")]
    assert await collect(log_path, start=log.start) == [("stdout", "second")]


async def test_a_slow_reader_misses_nothing_and_holds_up_nobody(log_path):
    lines = 50_000
    got = 0
    follower = follow_groups(log_path)
    with opened(log_path) as log:
        log.write("stdout", b"0\n")
        async with aclosing(follower):
            with anyio.fail_after(BOUND):
                group = await anext(follower)
                assert group.lines == ["0"]
                for number in range(1, lines):
                    log.write("stdout", b"%d\n" % number)
                log.close()
                async for group in follower:
                    assert group.lines == [str(got + 1)]
                    got += 1
    assert got == lines - 1


async def test_leaving_a_follower_leaves_no_file_open(log_path):
    with opened(log_path) as log:
        log.write("stdout", b"one\ntwo\n")
        before = open_files()
        follower = follow_lines(log_path)
        async with aclosing(follower):
            await anext(follower)
        assert open_files() == before
        assert log._bell._waiting == []


def test_what_has_been_cut_into_lines_is_not_kept():
    tracemalloc.start()
    try:
        logs = [LogLines() for _ in range(20)]
        for log in logs:
            log.feed(Chunk("stdout", (b"0" * 99 + b"\n") * 1000, 0))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000, "20 commands that flood at once would keep 20 chunks"
