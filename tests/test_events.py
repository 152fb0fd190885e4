import asyncio
import io
import json
import logging
import pickle
import stat
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import anyio
import pytest
from engines import flat
from pydantic import TypeAdapter, ValidationError

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.events import (
    ConsoleHandler,
    EventHandler,
    FanOutHandler,
    JsonLinesHandler,
    NotificationHandler,
    deliver,
    events_of,
    line_events,
)
from cloudops_prefect.models import (
    CancelledEvent,
    CompletedEvent,
    ExecutionEvent,
    ExecutionResult,
    FailedEvent,
    ProgressEvent,
    StartedEvent,
    StderrEvent,
    StdoutEvent,
)
from cloudops_prefect.output import OutputLog

pytestmark = pytest.mark.anyio

BOUND = 20
NOW = datetime.now(UTC)


class Source:
    """One execution, as events of it."""

    def __init__(self, command="deploy.sh"):
        self.command = command
        self.ids = {"execution_id": uuid4(), "request_id": uuid4()}

    def started(self):
        return StartedEvent(command=self.command, **self.ids)

    def stdout(self, line):
        return StdoutEvent(line=line, **self.ids)

    def stderr(self, line):
        return StderrEvent(line=line, **self.ids)

    def failed(self, error="Command failed with exit code 3"):
        return FailedEvent(error=error, **self.ids)

    def cancelled(self):
        return CancelledEvent(**self.ids)

    def completed(self):
        result = ExecutionResult(
            id=self.ids["request_id"],
            execution_id=self.ids["execution_id"],
            status="completed",
            exit_code=0,
            stdout="",
            stderr="",
            duration=timedelta(seconds=1.25),
            started_at=NOW,
            completed_at=NOW,
            log_path="/logs/one.log",
            error=None,
        )
        return CompletedEvent(result=result, **self.ids)


class Recorder:
    def __init__(self):
        self.events = []
        self.closed = False

    async def on_event(self, event):
        self.events.append(event)

    async def aclose(self):
        self.closed = True


class Broken:
    async def on_event(self, event):
        raise RuntimeError("broken handler")

    async def aclose(self):
        raise RuntimeError("broken close")


async def feed(handler, events):
    for event in events:
        await handler.on_event(event)


async def each(events):
    for event in events:
        yield event


@pytest.fixture
def source():
    return Source()


# Console


async def test_the_console_prints_lines_where_the_command_printed_them(source):
    out, err = io.StringIO(), io.StringIO()
    events = [source.started(), source.stdout("one"), source.stderr("two"), source.completed()]
    await feed(ConsoleHandler(out, err), events)
    assert out.getvalue() == "one\n"
    assert err.getvalue() == (
        "[cloudops] deploy.sh started\ntwo\n[cloudops] deploy.sh completed after 1.2 s\n"
    )


async def test_the_console_names_the_command_once_there_are_several(source):
    out, err = io.StringIO(), io.StringIO()
    other = Source("aws s3 ls")
    events = [source.started(), source.stdout("alone"), other.started()]
    events += [source.stdout("one"), other.stdout("two"), source.failed(), other.cancelled()]
    await feed(ConsoleHandler(out, err), events)
    assert out.getvalue() == "alone\n[deploy.sh] one\n[aws s3 ls] two\n"
    assert err.getvalue().endswith(
        "[cloudops] deploy.sh failed: Command failed with exit code 3\n"
        "[cloudops] aws s3 ls cancelled\n"
    )


async def test_the_console_names_the_first_command_of_a_plan_too(source):
    out, err = io.StringIO(), io.StringIO()
    progress = ProgressEvent(
        plan_id=uuid4(), execution_id=uuid4(), completed=0, total=3, current_command="deploy.sh"
    )
    await feed(ConsoleHandler(out, err), [progress, source.started(), source.stdout("one")])
    assert out.getvalue() == "[deploy.sh] one\n"
    assert err.getvalue().startswith("[cloudops] 0 of 3 done, deploy.sh\n")


async def test_the_console_uses_the_streams_that_the_process_has_now(source, capsys):
    handler = ConsoleHandler()
    await feed(handler, [source.stdout("to stdout"), source.stderr("to stderr")])
    assert capsys.readouterr() == ("to stdout\n", "to stderr\n")


async def test_the_console_survives_what_its_encoding_cannot_print(source):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, "ascii")
    await feed(ConsoleHandler(out), [source.stdout("grün \ufffd")])
    assert raw.getvalue() == b"gr\\xfcn \\ufffd\n"


# JSON lines


async def test_json_lines_are_the_events(source, tmp_path):
    path = tmp_path / "deep" / "events.jsonl"
    events = [source.started(), source.stdout("a\nb\u2028"), source.failed(), source.completed()]
    async with JsonLinesHandler(path) as handler:
        for count, event in enumerate(events, 1):
            await handler.on_event(event)
            assert path.read_bytes().count(b"\n") == count, "there at once"
    adapter = TypeAdapter(ExecutionEvent)
    assert [adapter.validate_json(line) for line in path.read_bytes().splitlines()] == events
    assert json.loads(path.read_text().split("\n")[1])["event_type"] == "stdout"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_json_lines_take_the_name_of_a_file_as_text(source, tmp_path):
    async with JsonLinesHandler(str(tmp_path / "events.jsonl")) as handler:
        await handler.on_event(source.started())
    assert handler.path.read_text().count("\n") == 1


def test_a_handler_is_told_by_its_method():
    assert isinstance(Recorder(), EventHandler)
    assert not isinstance(Block(), EventHandler)


async def test_json_lines_append_and_are_closed_once(source, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("{}\n")
    handler = JsonLinesHandler(path)
    await handler.on_event(source.started())
    await handler.aclose()
    await handler.aclose()
    assert path.read_text().count("\n") == 2
    with pytest.raises(ExecutionIOError, match="closed"):
        await handler.on_event(source.started())


def test_json_lines_that_cannot_be_written_are_refused_at_once(tmp_path):
    with pytest.raises(ExecutionIOError, match=r"event file .*: Is a directory"):
        JsonLinesHandler(tmp_path)


# Fan-out and delivery


async def test_a_handler_that_raises_keeps_nothing_from_the_others(source, caplog):
    before, after = Recorder(), Recorder()
    handler = FanOutHandler([before, Broken(), after])
    events = [source.started(), source.stdout("one"), source.completed()]
    with caplog.at_level(logging.INFO):
        await feed(handler, events)
        assert before.events == after.events == events
        [record] = caplog.records
        assert "Broken failed on a 'started' event" in record.getMessage()
        assert record.exc_info is not None
        await handler.aclose()
    assert before.closed
    assert after.closed


async def test_delivery_goes_on_after_a_handler_raised(source, caplog):
    class Choosy(Recorder):
        async def on_event(self, event):
            await super().on_event(event)
            if event.event_type == "stdout":
                raise ValueError("no lines, please")

    handler = Choosy()
    events = [source.started(), *(source.stdout(str(n)) for n in range(100)), source.completed()]
    await deliver(each([events]), FanOutHandler([handler]))
    assert handler.events == events
    assert len(caplog.records) == 1, "a million failures are one error in the log"


async def test_a_handler_whose_own_task_was_cancelled_keeps_nothing_from_the_others(source, caplog):
    class Cancels:
        async def on_event(self, event):
            task = asyncio.ensure_future(anyio.sleep_forever())
            task.cancel()
            await task

    other = Recorder()
    events = [source.started(), source.stdout("one"), source.completed()]
    await deliver(each([events]), FanOutHandler([Cancels(), other]))
    assert other.events == events
    assert "Cancels failed on a 'started' event" in caplog.text


async def test_delivery_can_be_cancelled_while_a_handler_is_busy(source):
    class Stuck:
        async def on_event(self, event):
            await anyio.sleep_forever()

    with anyio.move_on_after(0.05) as scope:
        await deliver(each([[source.started()]]), FanOutHandler([Stuck()]))
    assert scope.cancelled_caught


# Notifications


class Block:
    def __init__(self):
        self.sent = []

    def notify(self, body, subject=None):
        self.sent.append((subject, body))


class AsyncBlock(Block):
    async def notify(self, body, subject=None):
        self.sent.append((subject, body))


class BothBlock(Block):
    async def anotify(self, body, subject=None):
        self.sent.append((subject, body))

    def notify(self, body, subject=None):
        raise AssertionError("not from a loop")


@pytest.mark.parametrize("kind", [Block, AsyncBlock, BothBlock])
async def test_a_bad_end_is_notified_of(source, kind):
    block = kind()
    other = Source("aws s3 ls")
    handler = NotificationHandler(block)
    events = [source.started(), source.stdout("x"), source.failed(), Source().completed()]
    await feed(handler, [*events, other.started(), other.cancelled()])
    [(subject, body), (other_subject, _)] = block.sent
    assert subject == "cloudops: deploy.sh failed"
    assert body.startswith("deploy.sh failed: Command failed with exit code 3\n")
    assert str(source.ids["execution_id"]) in body
    assert other_subject == "cloudops: aws s3 ls cancelled"


async def test_other_ends_are_notified_of_when_asked_for(source):
    block = Block()
    handler = NotificationHandler(block, on={"completed"})
    await feed(handler, [source.failed(), source.completed()])
    assert [subject for subject, _ in block.sent] == [
        f"cloudops: {source.ids['execution_id']} completed"
    ]
    with pytest.raises(ValueError, match="no such events to notify of: stdout"):
        NotificationHandler(block, on={"stdout", "failed"})


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_notification_that_fails_is_logged_and_not_raised(source, caplog, is_async):
    class Failing:
        def notify(self, body, subject=None):
            raise ConnectionError("mail server on fire")

    class AsyncFailing:
        async def notify(self, body, subject=None):
            raise ConnectionError("mail server on fire")

    await feed(NotificationHandler(AsyncFailing() if is_async else Failing()), [source.failed()])
    assert "could not send the notification" in caplog.text
    assert "mail server on fire" in caplog.text


async def test_a_notification_that_hangs_is_given_up(source, caplog, monkeypatch):
    class Hanging:
        async def notify(self, body, subject=None):
            await anyio.sleep_forever()

    monkeypatch.setattr("cloudops_prefect.events._NOTIFY_TIMEOUT", 0.05)
    with anyio.fail_after(BOUND):
        await feed(NotificationHandler(Hanging()), [source.failed()])
    assert "could not send the notification" in caplog.text


# Lines as events


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "logs" / "one.log"


async def test_lines_are_valid_events_in_order(log_path):
    ids = uuid4(), uuid4()
    with OutputLog.open(log_path, max_output_bytes=1000) as log:
        log.write("stdout", b"one\n")
        log.write("stderr", b"two\n")
        log.note("not an event")
        log.write("stdout", b"\xff three")
    with anyio.fail_after(BOUND):
        events = [event async for event in flat(line_events(log_path, *ids))]
    assert [(event.event_type, event.line) for event in events] == [
        ("stdout", "one"),
        ("stderr", "two"),
        ("stdout", "\ufffd three"),
    ]
    for event in events:
        assert (event.execution_id, event.request_id) == ids
        assert event.timestamp.tzinfo is not None
        assert TypeAdapter(ExecutionEvent).validate_json(event.model_dump_json()) == event


@pytest.mark.parametrize("model", [StdoutEvent, StderrEvent])
def test_events_of_lines_are_what_their_model_makes(model):
    ids = {"execution_id": uuid4(), "request_id": uuid4()}
    lines = ["one", "", "zwei\0 \ufffd"]
    made = list(events_of(model, lines, *ids.values(), NOW))
    expected = [model(line=line, timestamp=NOW, **ids) for line in lines]
    assert made == expected
    assert [pickle.loads(pickle.dumps(event)) for event in made] == expected
    for event, other in zip(made, expected, strict=True):
        assert type(event) is model
        assert hash(event) == hash(other)
        assert repr(event) == repr(other)
        assert event.model_dump() == other.model_dump()
        assert event.model_dump_json() == other.model_dump_json()
        assert event.model_fields_set == other.model_fields_set
        assert event.model_copy(update={"line": "x"}) == other.model_copy(update={"line": "x"})
        with pytest.raises(ValidationError, match="frozen"):
            event.line = "changed"


async def test_a_slow_handler_needs_no_memory_and_delays_no_output(log_path):
    written = False
    got = 0

    class Slow:
        async def on_event(self, event):
            nonlocal got
            got += 1
            if not written:
                await anyio.sleep(0.001)

    async def handle():
        await deliver(line_events(log_path, uuid4(), uuid4()), FanOutHandler([Slow()]))

    lines = b"".join(b"%099d\n" % n for n in range(650))
    tracemalloc.start()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(handle)
            with OutputLog.open(log_path, max_output_bytes=1000) as log:
                for _ in range(300):
                    log.write("stdout", lines)
                    await anyio.lowlevel.checkpoint()
            assert got < 100_000, "the writer was not held up"
            written = True
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert got == 195_000
    assert peak < 8_000_000


def test_handlers_do_not_cost_the_import_of_prefect():
    import subprocess

    program = "import sys, cloudops_prefect.events; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
