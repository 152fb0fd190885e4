import os
import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.liveness import Sign, sign_of_life
from cloudops_prefect.output import OutputLog
from cloudops_prefect.retention import Pruned, old_executions, prune

MONTH = timedelta(days=30)
NOTHING = Pruned([], 0)


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


def test_old_logs_go_and_everything_else_stays(log_dir, old_log):
    young = log_dir / f"{uuid4()}.log"
    opened(young).close()
    names = [
        "notes.log",
        "z" * 36 + ".log",
        old_log.stem,
        f"{old_log.stem}.tar.gz",
        f"{uuid4()}.json",
    ]
    names += [f"{uuid4()}".upper() + ".log", f"{uuid4()}.old.log"]
    foreign = [log_dir / name for name in names]
    for path in foreign:
        path.write_text("")
        make_old(path)
    assert old_executions(log_dir, MONTH) == [UUID(old_log.stem)]
    size = old_log.stat().st_size + old_log.with_suffix(".idx").stat().st_size
    assert prune(log_dir, MONTH) == ([UUID(old_log.stem)], size)
    assert sorted(log_dir.iterdir()) == sorted([young, young.with_suffix(".idx"), *foreign])


def test_only_what_was_asked_for_goes(log_dir, old_log):
    other = log_dir / f"{uuid4()}.log"
    opened(other).close()
    make_old(other, other.with_suffix(".idx"))
    pruned = prune(log_dir, MONTH, only={UUID(other.stem)})
    assert pruned.executions == [UUID(other.stem)]
    assert sorted(log_dir.iterdir()) == sorted([old_log, old_log.with_suffix(".idx")])


def test_the_newest_of_the_files_counts(log_dir, old_log):
    other = old_log.with_suffix(".alive")
    other.write_text("")
    assert prune(log_dir, MONTH) == NOTHING
    make_old(other, days=29)
    assert prune(log_dir, MONTH) == NOTHING


def test_the_log_of_a_command_that_printed_nothing_for_a_month_stays(log_dir, old_log):
    with opened(old_log) as log:
        make_old(old_log, old_log.with_suffix(".idx"))
        assert prune(log_dir, MONTH) == NOTHING
        log.write("stdout", b"still here")
    make_old(old_log, old_log.with_suffix(".idx"))
    assert prune(log_dir, MONTH).executions == [UUID(old_log.stem)]


def test_the_sign_of_life_of_a_run_that_goes_on_stays(log_dir, old_log):
    sign = Sign(UUID(old_log.stem), 1, "http://an.api/of-another-home")
    with sign_of_life(log_dir, sign):
        make_old(old_log.with_suffix(".alive"))
        assert prune(log_dir, MONTH) == NOTHING
        old_log.unlink()
        assert prune(log_dir, MONTH) == NOTHING
        assert old_log.with_suffix(".alive").exists()


def test_a_log_that_is_started_anew_while_its_age_is_looked_at_stays(log_dir, old_log):
    class StartsAnew:
        def __contains__(self, _):
            opened(old_log).close()
            return True

    old_log.with_suffix(".idx").unlink()
    assert prune(log_dir, MONTH, only=StartsAnew()) == NOTHING
    assert old_log.exists()


def test_an_index_without_its_log_goes_too(log_dir, old_log):
    old_log.unlink()
    assert prune(log_dir, MONTH).executions == [UUID(old_log.stem)]
    assert not any(log_dir.iterdir())


def test_links_and_directories_are_left_alone(log_dir, old_log, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("content")
    old_log.unlink()
    old_log.symlink_to(precious)
    (log_dir / f"{uuid4()}.log").mkdir()
    assert prune(log_dir, timedelta(0)) == NOTHING
    assert precious.read_text() == "content"


def test_a_directory_that_is_missing_has_nothing_to_remove(tmp_path):
    assert prune(tmp_path / "none", MONTH) == NOTHING
    assert old_executions(tmp_path / "none", MONTH) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ExecutionIOError, match="Not a directory"):
        prune(tmp_path / "file", MONTH)
