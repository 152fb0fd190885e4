"""Output and results on their way to the API, which is slow, refuses, or is not there."""

import base64
import json
import time
import zlib
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Semaphore
from uuid import uuid4

import anyio
import pytest
from engines import until
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Artifact
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from small_api import small_api

from cloudops_prefect import output_feed, publishing
from cloudops_prefect.models import ExecutionResult, ExecutionStatus
from cloudops_prefect.output import OutputLog, OutputReader
from cloudops_prefect.output_feed import OutputFeed
from cloudops_prefect.publishing import PendingResult, Publisher
from cloudops_prefect.records import ResultRecord, from_artifact, to_artifact

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024
BOUND = 60


@pytest.fixture
def api():
    with small_api() as api:
        yield api


@pytest.fixture
async def publisher(api):
    # Prefect's own tries come before ours, and take seconds.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        async with PrefectClient(api.url) as client, anyio.create_task_group() as tasks:
            publisher = Publisher(client)
            tasks.start_soon(publisher.run)
            yield publisher
            tasks.cancel_scope.cancel()


@pytest.fixture
def log(tmp_path):
    with OutputLog.open(tmp_path / f"{uuid4()}.log", max_output_bytes=1000) as log:
        yield log


def feed_of(log, flow_run_id=None, *, ended=True) -> OutputFeed:
    return OutputFeed(
        log.path, flow_run_id or uuid4(), uuid4(), 10 * MIB, OutputReader(log.path), ended=ended
    )


def result_of(flow_run_id, stdout="") -> PendingResult:
    result = ExecutionResult(
        id=uuid4(),
        execution_id=flow_run_id,
        status=ExecutionStatus.COMPLETED,
        exit_code=3,
        stdout=stdout,
        duration=timedelta(seconds=1),
    )
    record = ResultRecord(flow_run_id=flow_run_id, index=0, attempt=1, result=result)
    return PendingResult(record, lambda: result)


def results_in(api) -> list[ExecutionResult]:
    class Artifact:
        def __init__(self, document):
            self.id, self.data = None, document["data"]

    return [
        record.result for document in api.artifacts for record in from_artifact(Artifact(document))
    ]


def test_fields_without_a_value_are_not_stored_since_older_versions_may_not_know_them():
    record = result_of(uuid4(), "out").record()
    more = record.result.model_copy(update={"leftovers": ["sleep 60 (pid 7)"]})
    other = record.model_copy(update={"result": more})
    artifact = to_artifact(record.flow_run_id, [record, other])
    stored = json.loads(zlib.decompress(base64.b64decode(artifact.data["records"])))
    assert [sorted(one["result"].keys() & {"leftovers", "stderr"}) for one in stored] == [
        [],
        ["leftovers"],
    ]
    read = Artifact(type="result", data=artifact.data)
    assert from_artifact(read) == [record, other]


async def test_a_slow_api_that_answers_gets_everything(api, publisher, log, monkeypatch, caplog):
    begun, late = Semaphore(0), []

    def move_on_after(seconds):
        if seconds == publishing.OUTPUT_TIMEOUT_SECONDS:
            begun.release()
        return anyio_move_on_after(seconds)

    def answer(path, size):
        # However long it takes: after the answer before this one, all patience began anew.
        if not begun.acquire(timeout=BOUND):
            late.append(path)
        return 201

    anyio_move_on_after = anyio.move_on_after
    monkeypatch.setattr(anyio, "move_on_after", move_on_after)
    api.answer = answer
    log.write("stdout", b"y\n" * MIB)
    log.close()
    feed = feed_of(log)
    publisher.add_output(feed)
    publisher.add_result(result_of(feed.flow_run_id))
    await publisher.flush(feed.flow_run_id)
    assert api.text == "\n".join(["y"] * MIB)
    assert [one.exit_code for one in results_in(api)] == [3]
    assert (late, api.asked > 2) == ([], True)
    assert not caplog.records


async def test_a_result_waits_for_the_api_however_long(api, publisher, log, monkeypatch):
    monkeypatch.setattr(publishing, "OUTPUT_TIMEOUT_SECONDS", 0.1)
    answers = iter([500])
    api.answer = lambda path, size: next(answers, 201)
    log.write("stdout", b"printed\n")
    log.close()
    feed = feed_of(log)
    publisher.add_output(feed)
    publisher.add_result(result_of(feed.flow_run_id))
    await publisher.flush(feed.flow_run_id)
    assert (api.text, [one.exit_code for one in results_in(api)]) == ("printed", [3])


async def test_output_alone_is_given_up_if_the_api_does_not_answer(
    api, publisher, log, monkeypatch, caplog
):
    monkeypatch.setattr(publishing, "OUTPUT_TIMEOUT_SECONDS", 0.1)
    api.answer = lambda path, size: 500
    log.write("stdout", b"printed\n")
    log.close()
    feed = feed_of(log)
    publisher.add_output(feed)
    with anyio.fail_after(BOUND):
        await publisher.flush(feed.flow_run_id)
    assert "is not sent" in caplog.text


async def test_a_command_that_runs_on_does_not_hold_up_those_of_its_run_that_have_ended(
    api, publisher, log, tmp_path
):
    flow_run_id = uuid4()
    publisher.add_output(running := feed_of(log, flow_run_id, ended=False))
    with OutputLog.open(tmp_path / f"{uuid4()}.log", max_output_bytes=1000) as other:
        other.write("stdout", b"other\n")
    publisher.add_output(feed_of(other, flow_run_id))
    with anyio.fail_after(BOUND):
        await publisher.flush(flow_run_id)
    assert api.text == "other"
    assert not running.drained


async def test_a_busy_api_is_asked_again(api, publisher, log):
    answers = iter([408])
    api.answer = lambda path, size: next(answers, 201)
    log.write("stdout", b"printed\n")
    log.close()
    feed = feed_of(log)
    publisher.add_output(feed)
    await publisher.flush(feed.flow_run_id)
    assert api.text == "printed"


async def test_what_is_too_large_for_a_proxy_arrives_in_parts(api, publisher, log):
    limit = 500_000
    api.answer = lambda path, size: 413 if size > limit else 201
    log.write("stdout", b"y\n" * 5 * MIB)
    log.close()
    feed = feed_of(log)
    publisher.add_output(feed)
    await publisher.flush(feed.flow_run_id)
    assert api.text == "\n".join(["y"] * 5 * MIB)


async def test_a_single_record_that_is_too_large_for_a_proxy_arrives_in_parts(
    api, publisher, log, caplog
):
    api.answer = lambda path, size: 413 if size > 6000 else 201
    lines = [f"{number}" * (number % 7) for number in range(20_001)]
    log.write("stdout", "\n".join(lines).encode())
    log.write("stderr", b"the end")
    log.close()
    feed = feed_of(log)
    publisher.add_output(feed)
    await publisher.flush(feed.flow_run_id)
    assert api.text == "\n".join([*lines, "the end"])
    times = [record["timestamp"] for batch in api.batches for record in batch]
    assert times == sorted(set(times))
    assert not caplog.records


async def test_a_record_that_is_refused_however_short_is_dropped_with_a_warning(
    api, publisher, log, caplog
):
    api.answer = lambda path, size: 413 if size > 3000 else 201
    log.write("stdout", b"x" * 5000 + b"\n")
    log.write("stderr", b"short")
    log.close()
    feed = feed_of(log)
    publisher.add_output(feed)
    await publisher.flush(feed.flow_run_id)
    assert api.text == "x" * 904 + "\nshort"
    assert "refused" in caplog.text


async def test_batches_are_within_their_bounds(api, publisher, log):
    log.write("stdout", b"y\n" * 2 * MIB)
    log.close()
    feed = feed_of(log)
    publisher.add_output(feed)
    await publisher.flush(feed.flow_run_id)
    sizes = [sum(len(record["message"]) for record in batch) for batch in api.batches]
    assert max(sizes) <= publishing.BATCH_BYTES
    assert len(sizes) < 12


async def test_of_a_result_that_is_too_large_the_end_of_the_output_arrives(api, publisher):
    api.answer = lambda path, size: 413 if size > 3000 else 201
    flow_run_id = uuid4()
    words = " ".join(uuid4().hex for _ in range(1000))
    publisher.add_result(result_of(flow_run_id, words))
    publisher.add_result(result_of(flow_run_id))
    await publisher.flush(flow_run_id)
    long, short = results_in(api)
    assert long.stdout
    assert words.endswith(long.stdout)
    assert (long.stdout_truncated, long.stderr_truncated, long.exit_code) == (True, False, 3)
    assert short.stdout_truncated is False


async def test_ends_of_other_runs_make_no_batches_of_a_run_that_goes_on(api, publisher, log):
    publisher.add_output(feed := feed_of(log, ended=False))
    begun = time.monotonic()

    def most() -> float:
        return (time.monotonic() - begun) / publishing.UPLOAD_INTERVAL_SECONDS + 1

    with anyio.fail_after(BOUND):
        while len(api.batches) < 3 or len(api.artifacts) <= most():
            log.write("stdout", b"tick\n")
            publisher.add_result(result_of(other := uuid4()))
            await publisher.flush(other)
    assert len(api.batches) <= most()
    assert not feed.drained


@asynccontextmanager
async def closed(path):
    """The log can't be read: it is where a symbolic link is, which nobody follows."""
    away = path.with_suffix(".away")
    path.rename(away)
    path.symlink_to(away)
    yield
    away.rename(path)


async def test_a_log_that_cannot_be_read_for_a_while_is_read_later(api, publisher, log):
    log.write("stdout", b"printed\n")
    log.close()
    async with closed(log.path):
        publisher.add_output(feed := feed_of(log))

        async def has_failed() -> bool:
            return feed.failures > 0

        await until(has_failed)
    await publisher.flush(feed.flow_run_id)
    assert api.text == "printed"


async def test_a_log_that_cannot_be_read_is_nobody_elses_trouble(
    api, publisher, log, tmp_path, monkeypatch
):
    monkeypatch.setattr(output_feed, "MOST_FAILURES", 2)
    log.write("stdout", b"printed\n")
    log.close()
    with OutputLog.open(tmp_path / f"{uuid4()}.log", max_output_bytes=1000) as other:
        other.write("stdout", b"other\n")
    async with closed(log.path):
        for feed in (feed_of(log), feed_of(other)):
            publisher.add_output(feed)
            await publisher.flush(feed.flow_run_id)
    note, text = (record["message"] for record in api.logs)
    assert f"can't read {log.path}" in note
    assert f"the rest is in {log.path}" in note
    assert text == "other"


async def test_a_result_that_cannot_be_loaded_is_stored_without_its_output(api, publisher, caplog):
    broken, other = uuid4(), uuid4()
    publisher.add_result(replace(result_of(broken), load=lambda: 1 // 0))
    publisher.add_result(result_of(other))
    await publisher.flush(broken)
    await publisher.flush(other)
    results = {one.execution_id: one for one in results_in(api)}
    assert results[other].error is None
    assert (results[broken].status, results[broken].exit_code) == ("completed", 3)
    assert (
        "output could not be stored: unforeseen error: ZeroDivisionError" in results[broken].error
    )
    assert results[broken].stdout_truncated
    assert str(broken) in caplog.text
