"""What the API gets of a command's output; no server is needed to see it."""

import logging
from uuid import uuid4

import pytest

from cloudops_prefect.output import OutputLog, OutputReader
from cloudops_prefect.output_feed import APART, PIECE, RECORD_BYTES, OutputFeed, in_pieces


@pytest.fixture
def log(tmp_path):
    with OutputLog.open(tmp_path / f"{uuid4()}.log", max_output_bytes=1000) as log:
        yield log


def sent(log, budget=1_000_000, **fields):
    """All records of a log that is complete."""
    log.close()
    reader = OutputReader(log.path)
    feed = OutputFeed(log.path, uuid4(), uuid4(), budget, reader, ended=True, **fields)
    records = []
    while not feed.drained:
        records += feed.next_records()
    return records


def test_many_lines_are_one_record_and_streams_are_told_apart(log):
    log.write("stdout", b"".join(b"line %d\n" % n for n in range(1000)))
    log.write("stderr", b"oops\n")
    log.note("stopped it")
    out, err, note = sent(log)
    assert out.message == "\n".join(f"line {n}" for n in range(1000))
    assert (out.name, out.level) == ("cloudops.stdout", logging.INFO)
    assert (err.name, err.level, err.message) == ("cloudops.stderr", logging.WARNING, "oops")
    assert (note.name, note.message) == ("cloudops.note", "[cloudops] stopped it")
    assert out.timestamp < err.timestamp < note.timestamp


def test_streams_that_take_turns_keep_their_order(log):
    for number in range(5):
        log.write("stdout", b"out %d\n" % number)
        log.write("stderr", b"err %d\n" % number)
    turns = [f"{stream} {number}" for number in range(5) for stream in ("out", "err")]
    assert [record.message for record in sent(log)] == turns


def test_streams_that_take_turns_all_the_time_are_no_record_a_line(log):
    for number in range(1000):
        log.write("stdout", b"out %d\n" % number)
        log.write("stderr", b"err %d\n" % number)
    records = sent(log)
    assert len(records) <= 4
    for stream in ("out", "err"):
        messages = [one.message for one in records if one.name == f"cloudops.std{stream}"]
        assert "\n".join(messages) == "\n".join(f"{stream} {number}" for number in range(1000))


def test_a_note_behind_an_unfinished_line_is_one_line(log):
    log.write("stdout", b"no newline")
    log.note("stopped it")
    assert sorted(record.message for record in sent(log)) == ["[cloudops] stopped it", "no newline"]


@pytest.mark.parametrize("end", [b"", b"\r", b"\n", b"\r\n"])
def test_a_progress_bar_is_one_line(log, end):
    for percent in range(10_000):
        log.write("stderr", b"\r%5d of 10000" % (percent + 1))
    log.write("stderr", end)
    [record] = sent(log)
    assert record.message == "10000 of 10000"


def test_past_the_limit_one_record_says_where_the_rest_is(log):
    for number in range(10_000):
        log.write("stdout", b"%0999d\n" % number)
    *records, last = sent(log, budget=2_000_000)
    lines = [line for record in records for line in record.message.split("\n")]
    assert lines == [f"{number:0999d}" for number in range(2000)]
    assert len(records) < 10
    assert last.name == "cloudops.limit"
    assert str(log.path) in last.message
    assert last.timestamp - records[-1].timestamp == APART, "as late as what is not sent"


def test_a_line_without_end_comes_in_pieces_up_to_the_limit(log):
    for _ in range(100):
        log.write("stdout", b"x" * 100_000)
    *records, last = sent(log, budget=2_000_000)
    text = "".join(record.message for record in records).replace("\n", "")
    assert set(text) == {"x"}
    assert 1_900_000 < len(text) <= 2_000_000
    assert str(log.path) in last.message


def test_what_a_database_cannot_hold_is_replaced(log):
    log.write("stdout", b"a\0b\xff")
    [record] = sent(log)
    assert record.message == "a\N{SYMBOL FOR NULL}b\ufffd"


def test_what_is_sent_counts_not_what_was_printed(log):
    log.write("stdout", (b"\0" * 99 + b"\n") * 10_000)
    *records, last = sent(log, budget=300_000)
    size = sum(len(record.message.encode()) + 1 for record in records)
    assert 299_000 < size <= 300_000
    assert last.name == "cloudops.limit"


def test_a_record_is_no_longer_than_the_api_takes(log):
    log.write("stdout", b"\xff" * 50_000 + b"\n" + b"line\n" * 50_000)
    records = sent(log, record_bytes=10_000)
    assert max(len(record.message.encode()) for record in records) < 10_000
    lines = [line for record in records for line in record.message.split("\n")]
    assert lines[-50_000:] == ["line"] * 50_000
    assert "".join(lines[:-50_000]) == "\ufffd" * 50_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "one\n\ntwo\n",
        "\n" * RECORD_BYTES,
        "x" * RECORD_BYTES,
        ("x" * PIECE + "\n") * 10,
        ("x" * (PIECE // 2) + "\n") * 20,
        ("y" * (PIECE + 1) + "\n") * 10,
        ("x" * PIECE + "\n\n") * (RECORD_BYTES // PIECE - 1),
    ],
)
def test_a_record_in_pieces_is_the_same_lines_before_those_of_the_next(log, text):
    log.write("stdout", text.encode() + b"\n")
    log.write("stderr", b"next\n")
    *records, _ = sent(log, record_bytes=RECORD_BYTES)
    for record in records:
        pieces = in_pieces(record)
        lines = [line for piece in pieces for line in piece.message.split("\n")]
        cut = [line for line in record.message.split("\n") if len(line) > PIECE]
        if not cut:
            assert lines == record.message.split("\n")
        assert "".join(lines) == record.message.replace("\n", "")
        assert max(len(piece.message) for piece in pieces) <= PIECE
        times = [piece.timestamp for piece in pieces]
        assert times == sorted(set(times))
        assert times[-1] - times[0] < APART
