"""How long until nothing is left of a command that is stopped, for kinds of commands and ways.

The kinds and their test programs are those of the tests. What is measured is the time from a
request to the end of the last process of one command's tree, or of fifty commands' trees: each
process has a pidfd by then, and the kernel tells its end.

An engine is asked for one stop after the other, each of a run that it has just started. A signal
and a worker stop all kinds at once: the process that gets the signal runs a plan of each kind, and
the run that is cancelled under the worker is one plan of all of them, because a worker takes some
seconds to start the process of a run. There each kind is measured amid the end of all the others.
"""

import signal
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from stopped import ARGV, count_ready, plan_of
from workers import create_pool, process_worker

from benchmarks.bench import Bench, Subject, say
from benchmarks.measures import Row, Sample, missed
from benchmarks.trees import Trees

GRACE_MS = 500
IN_ENGINE = ["timeout", "engine.cancel", "UI cancel, local"]
WORKER = "UI cancel, worker"
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}
WAYS = [*IN_ENGINE, WORKER, *SIGNALS]
STOP_TIMEOUT_SECONDS = 10.0
POOL = "bench"
IGNORES_SIGTERM = "ignores sigterm"
Told = dict[str, float]
Cells = dict[tuple[str, str], list[Told]]
# Stops a plan of each kind in one way.
Stop = Callable[[], dict[str, Told]]


def measure(bench: Bench) -> list[Row]:
    cells: Cells = defaultdict(list)
    parts: list[Callable[[Bench], AbstractContextManager[dict[str, Stop]]]]
    parts = [_by_an_engine, _under_a_worker, _by_signals]
    for part in parts:
        with part(bench) as ways:
            for number in range(1, bench.runs + 1):
                say(f"{', '.join(ways)}: {number} of {bench.runs}")
                for way, stop in ways.items():
                    for kind, told in stop().items():
                        cells[kind, way].append(told)
    return [_row(kind, cells) for kind in ARGV]


@contextmanager
def _by_an_engine(bench: Bench) -> Iterator[dict[str, Stop]]:
    with bench.subject("stopper", **_settings(bench)) as subject:

        def stop(way: str) -> dict[str, Told]:
            return {
                kind: subject.ask("stop", kind=kind, way=way, seconds=STOP_TIMEOUT_SECONDS)
                for kind in ARGV
            }

        yield {way: partial(stop, way) for way in IN_ENGINE}


@contextmanager
def _under_a_worker(bench: Bench) -> Iterator[dict[str, Stop]]:
    home = bench.scratch / "worker"
    home.mkdir()
    create_pool(bench.server.url, POOL)
    settings = _settings(bench)
    variables = bench.environment() | settings
    with (
        process_worker(bench.server.url, home, POOL, **variables),
        bench.subject("stopper", **settings) as subject,
    ):
        yield {
            WORKER: partial(
                subject.ask, "stop_under_worker", pool=POOL, seconds=STOP_TIMEOUT_SECONDS
            )
        }


@contextmanager
def _by_signals(bench: Bench) -> Iterator[dict[str, Stop]]:
    yield {way: partial(_stopped_by, bench, number) for way, number in SIGNALS.items()}


def _settings(bench: Bench) -> dict[str, str]:
    log_dir = bench.scratch / uuid.uuid4().hex
    return {
        "CLOUDOPS_LOG_DIR": str(log_dir),
        "CLOUDOPS_GRACE_PERIOD_MS": str(GRACE_MS),
        "CLOUDOPS_MAX_CONCURRENT_EXECUTIONS": "100",
    }


def _stopped_by(bench: Bench, number: signal.Signals) -> dict[str, Told]:
    """Sends a signal to a process that runs a plan of each kind at once."""
    marks = {kind: uuid.uuid4().hex for kind in ARGV}
    settings = _settings(bench)
    with bench.subject("victim", **settings) as subject:
        _run_all(bench, subject, marks, settings["CLOUDOPS_LOG_DIR"])
        trees = Trees(marks)
        asked = time.time()
        subject.send_signal(number)
        told = trees.told(asked, STOP_TIMEOUT_SECONDS)
        subject.wait(30)
    return told


def _run_all(bench: Bench, subject: Subject, marks: dict[str, str], log_dir: str) -> None:
    plans = [plan_of(kind, mark) for kind, mark in marks.items()]
    subject.answer()
    subject.tell("run", plans=[plan.model_dump(mode="json") for plan in plans])
    count = sum(len(plan.commands) for plan in plans)
    deadline = time.monotonic() + 60
    while count_ready(bench.scratch / log_dir) < count:
        assert time.monotonic() < deadline, "the commands are not ready in time"
        time.sleep(0.02)


def _row(kind: str, cells: Cells) -> Row:
    waits = kind == IGNORES_SIGTERM
    median, worst = (GRACE_MS + 1000,) * 2 if waits else (500, 2000)
    row = Row(kind, {}, target=f"≤ {median} / {worst}", misses=[])
    for way in WAYS:
        told = cells[kind, way]
        sample = Sample(tuple(one["seconds"] for one in told))
        survivors = int(sum(one["survivors"] for one in told))
        row.cells[way] = f"{sample.median * 1000:.0f} / {sample.worst * 1000:.0f}"
        row.figures[way] = sample.figures() | {"survivors": survivors}
        limits = {
            "median_ms": (sample.median * 1000, median),
            "worst_ms": (sample.worst * 1000, worst),
            "survivors": (survivors, 0),
        }
        row.misses += [f"{way}: {miss}" for miss in missed(**limits)]
    return row
