"""A thousand commands: what each costs beside what it costs among a hundred, and memory."""

from benchmarks.bench import Bench, Subject
from benchmarks.measures import Row, Sample, megabytes, missed
from benchmarks.workloads import Workload

SHAPES = {
    "1 000 in parallel": Workload("parallel", 1000),
    "chain of 1 000": Workload("serial", 1000),
    "graph of 1 000, 3 000 edges": Workload("graph", 1000, edges=3),
}
SMALL_RUNS = 3
LARGE_RUNS = 1
MOST_MEMORY = 200e6


def measure(bench: Bench) -> list[Row]:
    return [_row(bench, title, work) for title, work in SHAPES.items()]


def _row(bench: Bench, title: str, large: Workload) -> Row:
    small = Workload(large.kind, 100, large.concurrency, large.edges)
    if bench.quick:
        large, small = small, Workload(large.kind, 20, large.concurrency, large.edges)
    peak, taken = _alternate(bench, small, large)
    per_command = Sample(tuple(taken[large]))
    base = Sample(tuple(taken[small]))
    ratio = per_command.median / base.median
    cell = f"{per_command} each; {ratio:.2f} of that at 100 ({base}); {megabytes(peak)}"
    misses = missed(cost_per_command=(ratio, 1.1), megabytes=(peak / 1e6, MOST_MEMORY / 1e6))
    figures = {"per command": per_command.figures(), "at 100": base.figures(), "peak": peak}
    target = "≤ 1.1 of the cost at 100, < 200 MB"
    return Row(title, {"ours": cell}, target, misses, figures)


def _alternate(
    bench: Bench, small: Workload, large: Workload
) -> tuple[int, dict[Workload, list[float]]]:
    taken: dict[Workload, list[float]] = {small: [], large: []}
    with bench.subject("ours") as subject:
        _per_command(bench, subject, small)
        for _ in range(min(bench.repeats, LARGE_RUNS)):
            for work in [*[small] * SMALL_RUNS, large]:
                peak, seconds = _per_command(bench, subject, work)
                taken[work].append(seconds)
    return peak, taken


def _per_command(bench: Bench, subject: Subject, work: Workload) -> tuple[int, float]:
    bench.server.settle()
    told = subject.ask("run", work=work.json())
    return told["peak"], told["seconds"] / work.count
