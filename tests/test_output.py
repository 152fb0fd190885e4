import os
import shutil
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.journal import RECORD, Position
from cloudops_prefect.logfiles import try_lock
from cloudops_prefect.output import OutputLog, OutputReader, Redactor, captured_output

MEGABYTE = 1_048_576
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "logs" / "one.log"


@pytest.fixture
def temp_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def opened(path, max_output_bytes=MEGABYTE, **options):
    return OutputLog.open(path, max_output_bytes=max_output_bytes, **options)


def rights(path):
    return stat.S_IMODE(path.stat().st_mode)


def read_all(path, max_bytes=262_144):
    chunks = []
    with OutputReader(path) as reader:
        while True:
            before = reader.position
            chunks += reader.read(max_bytes)
            if reader.position == before:
                return chunks


def streams(path, max_bytes=262_144):
    chunks = read_all(path, max_bytes)
    return {
        kind: b"".join(chunk.data for chunk in chunks if chunk.kind == kind)
        for kind in ("stdout", "stderr", "note")
    }


# What is recorded


def test_the_log_holds_every_byte_in_the_order_of_arrival(log_path):
    written = [("stdout", b"a\0\xff"), ("stderr", b"b\r\n"), ("stdout", b""), ("stdout", b"c")]
    with opened(log_path) as log:
        for stream, chunk in written:
            log.write(stream, chunk)
            assert log_path.read_bytes().endswith(chunk), "readable at once"
    assert log_path.read_bytes() == b"a\0\xffb\r\nc"
    assert [(chunk.kind, chunk.data) for chunk in read_all(log_path)] == [
        (stream, chunk) for stream, chunk in written if chunk
    ]


def test_a_note_is_a_line_of_its_own(log_path):
    with opened(log_path) as log:
        log.note("first")
        log.write("stdout", b"no newline")
        log.note("second")
        log.note("third")
    assert log_path.read_bytes() == (
        b"[cloudops] first\nno newline\n[cloudops] second\n[cloudops] third\n"
    )
    assert log.captured("stdout") == ("no newline", False)


def test_a_note_of_several_lines_becomes_one(log_path):
    with opened(log_path) as log:
        log.note("stopped sh -c\n  sleep")
    assert log_path.read_bytes() == b"[cloudops] stopped sh -c   sleep\n"


def test_an_output_of_nothing(log_path):
    with opened(log_path) as log:
        pass
    assert log_path.read_bytes() == b""
    assert log.captured("stdout") == ("", False)
    assert log.loss is None
    with OutputReader(log_path) as reader:
        assert reader.read() == []
        assert reader.ended


def test_a_late_write_is_a_loss_and_reaches_no_other_file(log_path, tmp_path):
    with opened(log_path, copy_to=tmp_path / "copy") as log:
        log.write("stdout", b"in time")
    with (tmp_path / "one").open("wb") as one, (tmp_path / "two").open("wb") as two:
        log.write("stdout", b"late")
        assert (one.tell(), two.tell()) == (0, 0)
    assert "4 bytes of output could not be written" in (log.loss or "")


def test_close_is_idempotent(log_path):
    log = opened(log_path)
    log.close()
    log.close()
    assert log_path.with_suffix(".idx").stat().st_size == RECORD.size


def test_secrets_reach_no_file_and_no_result(log_path, tmp_path):
    copy = tmp_path / "copy"
    redactor = Redactor(["hunter22"])
    with opened(log_path, redactor=redactor, copy_to=copy) as log:
        log.write("stdout", b"user hun")
        log.write("stderr", b"hunter22 on stderr")
        log.note("killed hunter22")
        log.write("stdout", b"ter22 done, hunter2")
    assert log.captured("stdout") == ("user ******** done, hunter2", False)
    assert log.captured("stderr") == ("******** on stderr", False)
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            assert b"hunter22" not in path.read_bytes()
    assert b"killed ********" in log_path.read_bytes()


def test_two_logs_that_share_their_secrets_do_not_mix_what_is_held_back(tmp_path):
    redactor = Redactor(["hunter22"])
    logs = [opened(tmp_path / f"{n}.log", redactor=redactor) for n in range(2)]
    logs[0].write("stdout", b"hunt")
    logs[1].write("stdout", b"er22")
    for log in logs:
        log.close()
    assert [log.captured("stdout")[0] for log in logs] == ["hunt", "er22"]


# The end that a result keeps


@pytest.mark.parametrize("size", [1, 1000, 65_536, 300_000, 5_000_000])
def test_the_last_bytes_of_each_stream_are_captured(log_path, size):
    data = "".join(f"{number}\n" for number in range(400_000)).encode()
    with opened(log_path, max_output_bytes=100_000) as log:
        if size == 1:
            data = data[:150_000]
        for begin in range(0, len(data), size):
            log.write("stdout", data[begin : begin + size])
            if begin == 0:
                log.write("stderr", b"early")
        expected = (data[-100_000:].decode(), True)
        assert log.captured("stdout") == expected, "before the end"
    assert log.captured("stdout") == expected
    assert log.captured("stderr") == ("early", False)
    assert captured_output(log_path, "stdout", 100_000) == expected
    assert captured_output(log_path, "stdout", len(data)) == (data.decode(), False)
    assert captured_output(log_path, "stderr", 4) == ("arly", True)


@settings(max_examples=100)
@given(
    chunks=st.lists(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.integers(1, 40)), max_size=30
    ),
    limit=st.integers(1, 100),
)
def test_what_is_captured_is_the_end_of_what_was_printed(chunks, limit):
    printed = {"stdout": "", "stderr": ""}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "one.log")
        with opened(path, max_output_bytes=limit) as log:
            for stream, size in chunks:
                text = "".join(chr(97 + (len(printed[stream]) + n) % 26) for n in range(size))
                printed[stream] += text
                log.write(stream, text.encode())
        for stream, text in printed.items():
            expected = (text[-limit:], len(text) > limit)
            assert log.captured(stream) == expected
            assert captured_output(path, stream, limit) == expected


@pytest.mark.parametrize("limit", range(1, 12))
def test_a_character_that_the_cut_splits_is_left_out(log_path, limit):
    text = "a€🎉é"
    with opened(log_path, max_output_bytes=limit) as log:
        log.write("stdout", text.encode())
    captured, cut_off = log.captured("stdout")
    assert text.endswith(captured)
    assert "\ufffd" not in captured
    assert cut_off == (limit < len(text.encode()))


def test_bad_bytes_are_replaced(log_path):
    with opened(log_path) as log:
        log.write("stdout", b"\x80\xff ok \xe2\x82")
    assert log.captured("stdout") == ("\ufffd\ufffd ok \ufffd", False)


def test_a_short_output_survives_the_removal_of_its_log(log_path):
    with opened(log_path) as log:
        log.write("stdout", b"rm -rf\n")
        log_path.unlink()
    assert log.captured("stdout") == ("rm -rf\n", False)
    with opened(log_path) as log:
        log.write("stdout", b"x" * 100_000)
    log_path.unlink()
    assert log.captured("stdout") == ("", True)


def test_memory_does_not_grow_with_output(log_path):
    chunk = b"x" * 65_536
    with opened(log_path, redactor=Redactor(["a secret", "another"])) as log:
        tracemalloc.start()
        try:
            for _ in range(1600):
                log.write("stdout", chunk)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert log_path.stat().st_size == 1600 * len(chunk)
    assert peak < MEGABYTE


# Reading


@pytest.mark.parametrize("max_bytes", [1, 3, 7, 100])
def test_a_read_returns_at_most_what_was_asked_for_and_can_be_resumed(log_path, max_bytes):
    with opened(log_path) as log:
        for number in range(20):
            log.write("stdout" if number % 3 else "stderr", b"%d " % number * number)
    whole = streams(log_path)
    parts = {"stdout": b"", "stderr": b"", "note": b""}
    position, ended = None, False
    while not ended:
        with OutputReader(log_path, position) as reader:
            chunks = reader.read(max_bytes)
            assert sum(len(chunk.data) for chunk in chunks) <= max_bytes
            assert reader.position != position
            position, ended = Position(*reader.position), reader.ended
        for chunk in chunks:
            parts[chunk.kind] += chunk.data
    assert parts == whole
    assert parts == streams(log_path, max_bytes)


def test_a_reader_waits_for_a_log_that_does_not_exist_yet(log_path):
    with OutputReader(log_path) as reader:
        assert reader.read() == []
        assert not reader.ended
        with opened(log_path) as log:
            assert reader.read() == []
            log.write("stdout", b"now")
            [chunk] = reader.read()
            assert chunk.data == b"now"
            assert abs(chunk.time.timestamp() - log_path.stat().st_mtime) < 5
            assert not reader.ended
        assert reader.read() == []
        assert reader.ended


def test_a_torn_last_record_is_ignored_and_read_once_it_is_whole(log_path):
    with opened(log_path) as log:
        log.write("stdout", b"one")
        log.write("stderr", b"two")
    index = log_path.with_suffix(".idx")
    records = index.read_bytes()
    for size in range(len(records)):
        index.write_bytes(records[:size])
        with OutputReader(log_path) as reader:
            got = [chunk.data for chunk in reader.read()]
            assert got == [b"one", b"two"][: size // RECORD.size]
            assert not reader.ended
            index.write_bytes(records)
            got += [chunk.data for chunk in reader.read()]
            assert got == [b"one", b"two"]


def test_records_of_bytes_that_were_lost_do_not_hang_a_reader(log_path):
    with opened(log_path) as log:
        log.write("stdout", b"0123456789")
        log.write("stdout", b"abcdef")
    os.truncate(log_path, 12)
    with OutputReader(log_path) as reader:
        assert [chunk.data for chunk in reader.read()] == [b"0123456789", b"ab"]
        assert reader.read() == []
        assert reader.ended


def test_a_log_without_its_index_can_still_be_read(log_path):
    with opened(log_path) as log:
        log.write("stdout", b"one")
        log.write("stderr", b"two")
    log_path.with_suffix(".idx").unlink()
    with OutputReader(log_path) as reader:
        assert reader.read() == []
        [chunk] = reader.read_unindexed()
        assert (chunk.kind, chunk.data) == ("stdout", b"onetwo")
        assert reader.read_unindexed() == []


def test_a_log_that_is_a_symbolic_link_is_not_read(log_path, tmp_path):
    log_path.parent.mkdir()
    (tmp_path / "other").write_text("secret of another user")
    log_path.symlink_to(tmp_path / "other")
    with OutputReader(log_path) as reader, pytest.raises(ExecutionIOError, match="can't read"):
        reader.read()


# Another try


def test_another_try_appends_and_captures_only_its_own(log_path):
    with opened(log_path) as first:
        first.write("stdout", b"first")
    reader = OutputReader(log_path, from_end=True)
    with opened(log_path) as second:
        second.write("stderr", b"second")
    assert log_path.read_bytes() == b"firstsecond"
    assert second.captured("stdout") == ("", False)
    assert second.captured("stderr") == ("second", False)
    with opened(log_path) as third:
        third.write("stdout", b"y" * 50_000)
    assert first.captured("stdout") == ("first", False)
    assert third.captured("stdout") == ("y" * 50_000, False)
    with reader:
        assert [chunk.data for chunk in reader.read()] == [b"second"]
        assert reader.ended
        assert [len(chunk.data) for chunk in reader.read()] == [50_000]
    assert streams(log_path) == {
        "stdout": b"first" + b"y" * 50_000,
        "stderr": b"second",
        "note": b"",
    }


def test_another_try_repairs_what_a_killed_writer_left(log_path):
    with opened(log_path) as log:
        log.write("stderr", b"one")
    index = log_path.with_suffix(".idx")
    # No end, half a record, and bytes that no record tells of.
    index.write_bytes(index.read_bytes()[: RECORD.size] + b"torn")
    with log_path.open("ab") as file:
        file.write(b"lost")
    late = OutputReader(log_path, from_end=True)
    with opened(log_path) as log:
        log.write("stdout", b"two")
    assert [(chunk.kind, chunk.data) for chunk in read_all(log_path)] == [
        ("stderr", b"one"),
        ("stdout", b"lost"),
        ("stdout", b"two"),
    ]
    assert log.captured("stdout") == ("two", False)
    with late:
        assert [chunk.data for chunk in late.read()] == [b"two"]


def test_an_end_is_told_from_what_follows_it(log_path):
    with OutputReader(log_path) as reader:
        with opened(log_path) as log:
            log.write("stdout", b"first")
            assert [chunk.data for chunk in reader.read()] == [b"first"]
            assert not reader.ended
        with opened(log_path) as log:
            log.write("stdout", b"second")
            assert reader.read() == []
            assert reader.ended
            assert [chunk.data for chunk in reader.read()] == [b"second"]
            assert not reader.ended


def test_a_killed_try_that_lost_nothing_gets_its_end_from_the_next(log_path):
    with opened(log_path) as log:
        log.write("stdout", b"first")
    os.truncate(log_path.with_suffix(".idx"), RECORD.size)
    with OutputReader(log_path) as reader:
        reader.read()
        opened(log_path).close()
        assert reader.read() == []
        assert reader.ended
    assert log_path.with_suffix(".idx").stat().st_size == 3 * RECORD.size


def test_another_try_after_records_outlived_their_bytes(log_path):
    with opened(log_path) as log:
        for chunk in (b"one", b"two", b"three"):
            log.write("stdout", chunk)
    os.truncate(log_path, 4)
    with opened(log_path) as log:
        log.write("stdout", b"new")
    assert streams(log_path)["stdout"] == b"onetnew"


def test_a_log_that_is_being_written_is_not_opened_twice(log_path):
    with opened(log_path), pytest.raises(ExecutionIOError, match="being written by another"):
        opened(log_path)
    opened(log_path).close()


# Rights


def test_a_log_that_is_pruned_while_it_is_opened_is_made_anew(log_path, monkeypatch):
    opened(log_path).close()
    locks = []

    def lock_too_late(fd):
        locks.append(fd)
        if len(locks) == 1:
            log_path.unlink()
        return try_lock(fd)

    monkeypatch.setattr("cloudops_prefect.logfiles.try_lock", lock_too_late)
    with opened(log_path) as log:
        log.write("stdout", b"x")
    assert len(locks) == 2
    assert log_path.read_bytes() == b"x"


def test_files_and_a_new_directory_are_private_whatever_the_umask(log_path, tmp_path):
    umask = os.umask(0)
    try:
        with opened(log_path, copy_to=tmp_path / "copy"):
            pass
    finally:
        os.umask(umask)
    assert rights(log_path.parent) == 0o700
    for path in (log_path, log_path.with_suffix(".idx"), tmp_path / "copy"):
        assert rights(path) == 0o600


def test_a_directory_of_the_users_keeps_its_rights(log_path):
    log_path.parent.mkdir(mode=0o755)
    log_path.parent.chmod(0o755)
    opened(log_path).close()
    assert rights(log_path.parent) == 0o755


def test_the_default_directory_is_narrowed(temp_dir):
    directory = temp_dir / f"cloudops-executions-{os.geteuid()}"
    directory.mkdir()
    directory.chmod(0o777)
    opened(directory / "one.log").close()
    assert rights(directory) == 0o700


OPENS_THE_DEFAULT = """
import os
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.output import OutputLog
for uid in (0, 65534):
    os.seteuid(uid)
    path = ExecutionConfig().log_path("one")
    with OutputLog.open(path, max_output_bytes=100) as log:
        log.write("stdout", b"it works")
    print(path.parent.name, path.read_text())
"""


@needs_root
def test_two_users_of_a_machine_have_a_default_directory_each(tmp_path):
    shared = Path(tempfile.mkdtemp(dir="/tmp"))
    shared.chmod(0o1777)
    env = {name: value for name, value in os.environ.items() if name != "CLOUDOPS_LOG_DIR"}
    argv = [sys.executable, "-c", OPENS_THE_DEFAULT]
    try:
        done = subprocess.run(
            argv, env={**env, "TMPDIR": str(shared)}, capture_output=True, text=True
        )
    finally:
        shutil.rmtree(shared)
    assert done.stdout.splitlines() == [
        "cloudops-executions-0 it works",
        "cloudops-executions-65534 it works",
    ], done.stderr


@needs_root
def test_a_directory_of_another_user_is_refused(log_path):
    log_path.parent.mkdir()
    os.chown(log_path.parent, 12_345, 12_345)
    with pytest.raises(ExecutionIOError, match=r"logs belongs to user 12345.*CLOUDOPS_LOG_DIR"):
        opened(log_path)


@needs_root
def test_a_symbolic_link_planted_by_another_user_is_refused(tmp_path):
    (tmp_path / "target").mkdir()
    link = tmp_path / "link"
    link.symlink_to("target")
    opened(link / "one.log").close()
    assert (tmp_path / "target" / "one.log").exists(), "our own links are followed"
    os.chown(link, 12_345, 12_345, follow_symlinks=False)
    with pytest.raises(ExecutionIOError, match="link is a symbolic link that belongs to user"):
        opened(link / "two.log")


@needs_root
def test_a_planted_log_file_is_refused(log_path):
    log_path.parent.mkdir()
    log_path.touch()
    os.chown(log_path, 12_345, 12_345)
    with pytest.raises(ExecutionIOError, match="not a file of ours"):
        opened(log_path)


@pytest.mark.parametrize("suffix", [".log", ".idx"])
def test_a_symbolic_link_in_place_of_a_file_is_refused(log_path, tmp_path, suffix):
    log_path.parent.mkdir()
    (tmp_path / "precious").write_text("content")
    log_path.with_suffix(suffix).symlink_to(tmp_path / "precious")
    with pytest.raises(ExecutionIOError, match="log file"):
        opened(log_path)
    assert (tmp_path / "precious").read_text() == "content"


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "logs").write_text("")
    with pytest.raises(ExecutionIOError, match=r"IO error: log directory .*logs is not a dir"):
        opened(tmp_path / "logs" / "one.log")
    with pytest.raises(ExecutionIOError, match="not a directory"):
        opened(tmp_path / "logs" / "deeper" / "one.log")


AS_NOBODY = """
import os, sys
from pathlib import Path
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.output import OutputLog
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    OutputLog.open(Path(sys.argv[1]), max_output_bytes=100)
except ExecutionIOError as error:
    print(error)
"""


def test_a_directory_that_is_not_writable_is_refused():
    # Not in tmp_path, whose parents another user may not enter.
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place, "logs")
        directory.mkdir()
        directory.chmod(0o555)
        Path(place).chmod(0o755)
        program = [sys.executable, "-c", AS_NOBODY, str(directory / "one.log")]
        ran = subprocess.run(program, capture_output=True, text=True, check=True)
    assert ran.stdout == f"IO error: log directory {directory} is not writable\n"


def test_refusing_leaves_no_file_open(log_path, tmp_path):
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(ExecutionIOError):
            opened(log_path, copy_to=tmp_path)
    assert len(list(Path("/dev/fd").iterdir())) == before
    opened(log_path).close()


# The second copy


def test_the_copy_holds_the_same_bytes_without_notes(log_path, tmp_path):
    copy = tmp_path / "deep" / "er" / "copy.txt"
    for attempt in (b"first\n", b"second\n"):
        with opened(log_path, copy_to=copy) as log:
            log.write("stdout", attempt)
            log.note("not for the user's file")
            log.write("stderr", b"err\n")
            assert copy.read_bytes() == attempt + b"err\n"


def test_an_existing_copy_is_emptied_and_keeps_its_rights(log_path, tmp_path):
    copy = tmp_path / "copy"
    copy.write_text("old")
    copy.chmod(0o644)
    opened(log_path, copy_to=copy).close()
    assert copy.read_text() == ""
    assert rights(copy) == 0o644


def test_a_copy_that_cannot_be_opened_is_an_error_before_the_command(log_path, tmp_path):
    (tmp_path / "file").write_text("")
    for bad in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(ExecutionIOError, match="output log"):
            opened(log_path, copy_to=bad)
    for own in (log_path, log_path.with_suffix(".idx")):
        with opened(log_path) as log:
            log.write("stdout", b"kept")
        with pytest.raises(ExecutionIOError, match="is the log file itself"):
            opened(log_path, copy_to=own)
        assert log_path.read_bytes().endswith(b"kept")


def test_a_copy_to_a_fifo_that_nobody_reads_does_not_hang(log_path, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ExecutionIOError, match="fifo"):
        opened(log_path, copy_to=tmp_path / "fifo")
    with opened(log_path, copy_to=Path("/dev/null")) as log:
        log.write("stdout", b"x")
    assert log.loss is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")
def test_a_full_copy_costs_the_log_nothing(log_path):
    with opened(log_path, copy_to=Path("/dev/full")) as log:
        log.write("stdout", b"one")
        log.write("stdout", b"two")
    assert log_path.read_bytes() == b"onetwo"
    assert log.loss == (
        "6 bytes of output could not be written to /dev/full: No space left on device"
    )


# A full disk

FULL = """
import resource, signal, sys
from pathlib import Path
from cloudops_prefect.output import OutputLog
path, chunk, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
room_at_the_end = sys.argv[4] == "room"
unlimited = resource.RLIM_INFINITY
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with OutputLog.open(path, max_output_bytes=1000) as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited))
    data = "".join(f"{n:07d}\\n" for n in range(5000)).encode()
    log.write("stderr", b"early")
    for begin in range(0, len(data), chunk):
        log.write("stdout", data[begin:begin + chunk])
    log.note("goes nowhere")
    before = log.captured("stdout"), log.captured("stderr")
    if room_at_the_end:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
assert before == ((data[-1000:].decode(), True), ("early", False)), before
assert before == (log.captured("stdout"), log.captured("stderr"))
kept = path.stat().st_size - 5
assert path.read_bytes() == (b"early" + data)[:kept + 5]
print(len(data) - kept, log.loss)
"""


@pytest.mark.parametrize(
    ("chunk", "limit"),
    [(1000, 20_000), (1, 20_000), (1, 20_008), (7, 1), (40_000, 0), (64, 39_999)],
    ids=["log", "index", "index torn", "at once", "nothing at all", "last bytes"],
)
@pytest.mark.parametrize("end", ["room", "no room"])
def test_a_full_disk_costs_the_logging_and_not_the_capture(log_path, chunk, limit, end):
    program = [sys.executable, "-c", FULL, str(log_path), str(chunk), str(limit), end]
    ran = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    lost, _, loss = ran.stdout.strip().partition(" ")
    assert loss.startswith(f"{lost} bytes of output could not be written to {log_path}: ")
    if end == "room":
        recorded = b"".join(chunk.data for chunk in read_all(log_path))
        assert recorded == log_path.read_bytes()
        with OutputReader(log_path) as reader:
            while reader.read():
                pass
            assert reader.ended
    # What is there reads well, and another try goes on behind it.
    with opened(log_path) as log:
        log.write("stdout", b"again")
    recorded = b"".join(chunk.data for chunk in read_all(log_path))
    assert recorded == log_path.read_bytes()
    assert recorded.endswith(b"again")


def test_closing_searches_no_index_for_a_stream_that_printed_nothing(log_path, monkeypatch):
    reads = []
    pread = os.pread
    with opened(log_path) as log:
        for _ in range(20_000):
            log.write("stdout", b"x")
        log.write("stdout", b"y" * MEGABYTE)
        monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
    assert len(reads) == 0
    assert log.captured("stderr") == ("", False)
