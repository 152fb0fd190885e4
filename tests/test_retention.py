import os
import time
from datetime import timedelta
from uuid import uuid4

import pytest

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.output import OutputLog
from cloudops_prefect.retention import prune

MONTH = timedelta(days=30)


def opened(path):
    return OutputLog.open(path, max_output_bytes=1000)


def make_old(*paths, days=31):
    then = time.time() - days * 86_400
    for path in paths:
        os.utime(path, (then, then))


@pytest.fixture
def log_dir(tmp_path):
    return tmp_path / "logs"


@pytest.fixture
def old_log(log_dir):
    path = log_dir / f"{uuid4()}.log"
    with opened(path) as log:
        log.write("stdout", b"x")
    make_old(path, path.with_suffix(".idx"))
    return path


def nothing_to_keep(_):
    return False


def test_old_logs_go_and_everything_else_stays(log_dir, old_log):
    young = log_dir / f"{uuid4()}.log"
    opened(young).close()
    other = log_dir / f"{old_log.stem}.result.json"
    foreign = [log_dir / "notes.log", log_dir / f"{old_log.stem}", log_dir / f"{'z' * 36}.log"]
    for path in (other, *foreign):
        path.write_text("")
        make_old(path)
    removed = prune(log_dir, MONTH, keep=nothing_to_keep)
    assert removed == sorted([old_log, old_log.with_suffix(".idx"), other])
    assert sorted(log_dir.iterdir()) == sorted([young, young.with_suffix(".idx"), *foreign])


def test_what_is_to_be_kept_is_kept_and_only_the_old_is_asked_about(log_dir, old_log):
    opened(log_dir / f"{uuid4()}.log").close()
    asked = []

    def keep(execution_id):
        asked.append(execution_id)
        return True

    assert prune(log_dir, MONTH, keep=keep) == []
    assert [str(execution_id) for execution_id in asked] == [old_log.stem]
    assert old_log.exists()


def test_the_newest_of_the_files_counts(log_dir, old_log):
    other = old_log.with_suffix(".result.json")
    other.write_text("")
    assert prune(log_dir, MONTH, keep=nothing_to_keep) == []
    make_old(other, days=29)
    assert prune(log_dir, MONTH, keep=nothing_to_keep) == []


def test_the_log_of_a_command_that_printed_nothing_for_a_month_stays(log_dir, old_log):
    with opened(old_log) as log:
        make_old(old_log, old_log.with_suffix(".idx"))
        assert prune(log_dir, MONTH, keep=nothing_to_keep) == []
        log.write("stdout", b"still here")
    make_old(old_log, old_log.with_suffix(".idx"))
    assert len(prune(log_dir, MONTH, keep=nothing_to_keep)) == 2


def test_a_log_that_is_started_anew_while_its_age_is_looked_at_stays(log_dir, old_log):
    def starts_anew(_):
        opened(old_log).close()
        return False

    old_log.with_suffix(".idx").unlink()
    assert prune(log_dir, MONTH, keep=starts_anew) == []
    assert old_log.exists()


def test_an_index_without_its_log_goes_too(log_dir, old_log):
    old_log.unlink()
    assert prune(log_dir, MONTH, keep=nothing_to_keep) == [old_log.with_suffix(".idx")]


def test_links_and_directories_are_left_alone(log_dir, old_log, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("content")
    old_log.unlink()
    old_log.symlink_to(precious)
    (log_dir / f"{uuid4()}.log").mkdir()
    assert prune(log_dir, timedelta(0), keep=nothing_to_keep) == []
    assert precious.read_text() == "content"


def test_a_directory_that_is_missing_has_nothing_to_remove(tmp_path):
    assert prune(tmp_path / "none", MONTH, keep=nothing_to_keep) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ExecutionIOError, match="Not a directory"):
        prune(tmp_path / "file", MONTH, keep=nothing_to_keep)
