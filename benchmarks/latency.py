"""What a caller waits for: a plan's compilation, a command's start, an answer."""

import json
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measures import Row, Sample, missed, seconds

EXECUTIONS = 10_000
STARTS_TIMEOUT_SECONDS = 60


def compile_plan(bench: Bench) -> list[Row]:
    count = 500 if bench.quick else 5000
    with bench.subject("ours") as subject:
        taken = [subject.ask("compile", count=count)["seconds"] for _ in range(bench.repeats + 2)]
    sample = Sample(tuple(taken))
    title = f"validate and compile {count:,} commands".replace(",", " ")
    misses = missed(seconds=(sample.median, 1.0))
    return [Row(title, {"ours": str(sample)}, "< 1 s", misses, sample.figures())]


def starts(bench: Bench) -> list[Row]:
    """Until the process has started: one after another and fifty at once; and the stalls."""
    calls, at_once = (20, 50) if bench.quick else (200, 50 * bench.repeats)
    with bench.subject("raw_prefect") as raw:
        plain = raw.ask("starts", calls=calls // 4, at_once=1)
        bench.server.settle()
        # Once: with stalls of Prefect's client it may take a minute.
        plain_crowd = raw.ask("starts", calls=50, at_once=50)
    bench.server.settle()
    with bench.subject("ours") as ours:
        single = ours.ask("starts", calls=calls, at_once=1, seconds=STARTS_TIMEOUT_SECONDS)
        bench.server.settle()
        crowd = ours.ask("starts", calls=at_once, at_once=50, seconds=STARTS_TIMEOUT_SECONDS)
    rows = [
        _start_row(
            f"start, {len(single['started'])} calls one after another", single["started"], plain
        ),
        _start_row("start, 50 calls at once", crowd["started"], plain_crowd),
    ]
    return [*rows, _stall_row([*single["started"], *crowd["started"]], single["returned"])]


def _start_row(title: str, values: list[float], plain: list[float]) -> Row:
    sample = Sample(tuple(values))
    cells = {"ours": _percentiles(sample), "raw Prefect": _percentiles(Sample(tuple(plain)))}
    ratio = sample.median / Sample(tuple(plain)).median
    misses = missed(ratio_to_raw=(ratio, 0.6))
    figures = sample.figures() | {"ratio to raw": ratio}
    return Row(title, cells, "≤ 0.6 of raw", misses, figures)


def _stall_row(started: list[float], returned: list[float]) -> Row:
    stalls = [value for value in started if value > 1]
    cell = f"{len(stalls)} of {len(started)} over 1 s; worst {seconds(max(started))}"
    cell += f"; execute() returns in {seconds(Sample(tuple(returned)).median)}"
    misses = missed(worst_start=(max(started), 2.0))
    return Row("stalls", {"ours": cell}, "none of 2 s", misses, {"stalls": stalls})


def _percentiles(sample: Sample) -> str:
    return f"median {seconds(sample.median)}, 99 % {seconds(sample.p99)}"


def reads(bench: Bench) -> list[Row]:
    """Questions to an API that knows ten thousand executions."""
    with bench.subject("ours") as subject:
        made = subject.ask("reads", calls=0, new=True)
        _multiply(bench.server.database, made["id"], EXECUTIONS)
        bench.server.settle()
        told = subject.ask("reads", calls=20 if bench.quick else 100, new=False)
    return [
        _read_row("get_status of one", told["get_status"], None),
        _read_row("list_executions of 10 000", told["list_executions"], 0.15),
    ]


def _read_row(title: str, told: dict, limit: float | None) -> Row:
    sample = Sample(tuple(told["seconds"]))
    number = told["requests"]
    cell = f"{seconds(sample.median)}, 99 % {seconds(sample.p99)}; {number} request(s)"
    misses = missed(requests=(number, 1))
    if limit is not None:
        misses = missed(seconds=(sample.median, limit))
    target = "one request" if limit is None else "< 150 ms"
    return Row(title, {"ours": cell}, target, misses, sample.figures() | {"requests": number})


def _multiply(database: Path, flow_run_id: str, count: int) -> None:
    """Copies a run and its last state, so that ten thousand don't have to be run."""
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        connection.row_factory = sqlite3.Row
        run = dict(_one(connection, "flow_run", flow_run_id))
        state = dict(_one(connection, "flow_run_state", run["state_id"]))
        runs, states = [], []
        for number in range(count):
            run_id, state_id = str(uuid.uuid4()), str(uuid.uuid4())
            states.append(state | {"id": state_id, "flow_run_id": run_id})
            tags = json.dumps([f"bench-{number}"])
            own = {"id": run_id, "state_id": state_id, "idempotency_key": None, "tags": tags}
            runs.append(run | own)
        _insert(connection, "flow_run", runs)
        _insert(connection, "flow_run_state", states)


def _one(connection: sqlite3.Connection, table: str, row_id: str) -> sqlite3.Row:
    found = connection.execute(f"SELECT * FROM {table} WHERE id = ?", [row_id]).fetchone()
    assert found is not None, f"{table} {row_id}"
    return found


def _insert(connection: sqlite3.Connection, table: str, rows: list[dict]) -> None:
    names = list(rows[0])
    marks = ", ".join(f":{name}" for name in names)
    connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)
