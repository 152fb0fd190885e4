"""Commands in order, at once and as a graph: ours beside every other way."""

from typing import Any

from benchmarks.bench import Bench, Subject
from benchmarks.measures import Row, Sample, missed
from benchmarks.workloads import Workload

SUBJECTS = {
    "ours": ("ours", "run"),
    "raw Prefect": ("raw_prefect", "run"),
    "shell_run_command": ("shell_task", "run"),
    "ShellOperation": ("shell_operation", "run"),
    "bare asyncio": ("bare", "run"),
    "xargs -P": ("bare", "xargs"),
}
NO_GRAPHS = {"xargs -P"}
WORKLOADS = {
    "100 one after another": Workload("serial", 100),
    "200, 8 at once": Workload("parallel", 200, concurrency=8),
    "graph of 50": Workload("graph", 50, edges=2),
}
TARGET = "≤ 0.8 of raw, ≤ 0.65 of shell_run_command"


def measure(bench: Bench) -> list[Row]:
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in WORKLOADS}
    for _ in range(bench.repeats):
        # A process each time: what one has still queued for the API must not slow the next.
        for name, (module, method) in SUBJECTS.items():
            with bench.subject(module) as subject:
                subject.ask(method, work=Workload("serial", 3).json())
                for title, work in _workloads(name, bench).items():
                    bench.server.settle()
                    taken[title].setdefault(name, []).append(_seconds(subject, method, work))
    return [_row(title, samples) for title, samples in taken.items()]


def _workloads(subject: str, bench: Bench) -> dict[str, Workload]:
    return {
        title: Workload(work.kind, 20, work.concurrency, work.edges) if bench.quick else work
        for title, work in WORKLOADS.items()
        if work.kind != "graph" or subject not in NO_GRAPHS
    }


def _seconds(subject: Subject, method: str, work: Workload) -> float:
    return subject.ask(method, work=work.json())["seconds"]


def _row(title: str, taken: dict[str, list[float]]) -> Row:
    samples = {name: Sample(tuple(values)) for name, values in taken.items()}
    ours = samples["ours"].median
    ratios = {name: ours / sample.median for name, sample in samples.items()}
    misses = missed(
        ratio_to_raw=(ratios["raw Prefect"], 0.8),
        to_shell_run_command=(ratios["shell_run_command"], 0.65),
    )
    cells = {name: _cell(name, samples[name], ratios[name]) for name in samples}
    figures: dict[str, Any] = {name: sample.figures() for name, sample in samples.items()}
    return Row(title, cells, TARGET, misses, figures | {"ratios": ratios})


def _cell(name: str, sample: Sample, ratio: float) -> str:
    return str(sample) if name == "ours" else f"{sample}; ratio {ratio:.2f}"
