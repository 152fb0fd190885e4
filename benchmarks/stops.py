"""How long until nothing is left of a command that is stopped, for kinds of commands and ways.

The kinds and their test programs are those of the tests.
"""

import signal
import time
import uuid
from collections import defaultdict

from benchmarks.bench import Bench, Subject
from benchmarks.measures import Row, Sample, bare
from benchmarks.trees import ARGV, Trees, count_ready, plan_of

GRACE_MS = 500
IN_ENGINE = ["timeout", "engine.cancel", "UI cancel, local"]
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}
PATIENCE = 10.0
IGNORES_SIGTERM = "ignores sigterm"
Cells = dict[tuple[str, str], list[dict[str, float]]]


def measure(bench: Bench) -> list[Row]:
    cells: Cells = defaultdict(list)
    with bench.subject("stopper", **_settings(bench)) as subject:
        for _ in range(bench.runs):
            for way in IN_ENGINE:
                for kind in ARGV:
                    told = subject.ask("stop", kind=kind, way=way, seconds=PATIENCE)
                    cells[kind, way].append(told)
    for way, number in SIGNALS.items():
        for _ in range(bench.runs):
            for kind, told in _stopped_by(bench, number).items():
                cells[kind, way].append(told)
    return [_row(kind, cells) for kind in ARGV]


def _settings(bench: Bench) -> dict[str, str]:
    log_dir = bench.scratch / uuid.uuid4().hex
    return {
        "CLOUDOPS_LOG_DIR": str(log_dir),
        "CLOUDOPS_GRACE_PERIOD_MS": str(GRACE_MS),
        "CLOUDOPS_MAX_CONCURRENT_EXECUTIONS": "100",
    }


def _stopped_by(bench: Bench, number: signal.Signals) -> dict[str, dict[str, float]]:
    """Sends a signal to a process that runs a plan of each kind at once."""
    marks = {kind: uuid.uuid4().hex for kind in ARGV}
    settings = _settings(bench)
    with bench.subject("victim", **settings) as subject:
        _run_all(bench, subject, marks, settings["CLOUDOPS_LOG_DIR"])
        trees = Trees(marks)
        asked = time.time()
        subject.send_signal(number)
        gone = trees.until_gone(PATIENCE)
        survivors = trees.survivors()
        subject.wait(30)
    return {
        kind: {"seconds": gone.get(kind, asked + PATIENCE) - asked, "survivors": survivors}
        for kind in ARGV
    }


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
    row = Row(kind, {}, misses=[])
    for way in [*IN_ENGINE, *SIGNALS]:
        told = cells[kind, way]
        sample = Sample(tuple(one["seconds"] for one in told))
        survivors = int(sum(one["survivors"] for one in told))
        row.cells[way] = f"{bare(sample.median)} / {bare(sample.worst)}"
        row.figures[way] = sample.figures() | {"survivors": survivors}
        row.misses += _misses(kind, way, sample, survivors)
    return row


def _misses(kind: str, way: str, sample: Sample, survivors: int) -> list[str]:
    waits = kind == IGNORES_SIGTERM
    median, worst = (GRACE_MS / 1000 + 1,) * 2 if waits else (0.5, 2.0)
    misses = [f"{way}: {survivors} survivors"] if survivors else []
    if sample.median > median:
        misses.append(f"{way}: median {sample.median:.2f} s > {median} s")
    if sample.worst > worst:
        misses.append(f"{way}: worst {sample.worst:.2f} s > {worst} s")
    return misses
