"""Much output: how fast it is stored, with how much memory, and whether it is what was printed."""

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.bench import Bench
from benchmarks.measures import Row, megabytes, missed, seconds

CHUNK = 1 << 20


@dataclass(frozen=True)
class Print:
    """A command that prints `lines` lines; peers print the first `peer_lines` of them."""

    title: str
    command: Callable[[int], str]
    lines: int
    peer_lines: int


PRINTS = [
    Print("`seq 1 1000000`", "seq 1 {}".format, 1_000_000, 1_000_000),
    Print(
        "1 GB of 100-byte lines",
        lambda lines: f"yes {'0123456789' * 9}012345678 | head -n {lines}",
        10_000_000,
        1_000_000,
    ),
]
WAYS = {
    "log file alone": {"handler": False, "api": False},
    "and the API": {"handler": False, "api": True},
    "the API and a handler": {"handler": True, "api": True},
}


@dataclass(frozen=True)
class Expected:
    """What a command is to print."""

    command: str
    lines: int
    sha256: str

    @classmethod
    def of(cls, command: Callable[[int], str], lines: int) -> Self:
        hashed = hashlib.sha256()
        argv = ["bash", "-c", command(lines)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while chunk := process.stdout.read(CHUNK):
                hashed.update(chunk)
        return cls(command(lines), lines, hashed.hexdigest())


@dataclass
class Stored:
    """What came of a command's output."""

    lines: int
    seconds: float
    peak: int | None
    exact: bool

    @property
    def rate(self) -> float:
        return self.lines / self.seconds

    def __str__(self) -> str:
        memory = "" if self.peak is None else f", {megabytes(self.peak)}"
        exact = "exact" if self.exact else "**not exact**"
        return f"{seconds(self.seconds)}, {self.rate / 1000:.0f} k lines/s{memory}, {exact}"


def measure(bench: Bench) -> list[Row]:
    return [row for one in PRINTS for row in _rows(bench, one)]


def _rows(bench: Bench, one: Print) -> list[Row]:
    large, small = (
        Expected.of(one.command, lines // 100 if bench.quick else lines)
        for lines in (one.lines, one.peer_lines)
    )
    peers = {
        "shell_run_command": _peer(bench, "shell_task", small, stream=True),
        "ShellOperation": _peer(bench, "shell_operation", small, stream=True),
    }
    quiet = {"ShellOperation": _peer(bench, "shell_operation", small, stream=False)}
    rows = []
    for way, options in WAYS.items():
        ours = _ours(bench, large, options)
        bare = _bare(bench, large, handler=options["handler"])
        others = peers if options["api"] else quiet
        rows.append(_row(f"{one.title}: {way}", ours, bare, others, options))
    return rows


def _row(
    title: str, ours: Stored, bare: Stored, others: dict[str, Stored], options: dict[str, bool]
) -> Row:
    all_of_them = {"ours": ours, **others, "bare asyncio": bare}
    misses = [] if ours.exact else ["not exact"]
    if options["handler"]:
        target = "8 times prefect-shell"
        limit = 8 * max(one.rate for one in others.values())
        misses += missed(lines_per_second_wanted=(limit, ours.rate))
    elif options["api"]:
        target = "exact"
    else:
        target = "≥ 500 k lines/s; 1 GB ≤ 1.5 of bare"
        misses += missed(lines_per_second_wanted=(500_000, ours.rate))
        if "GB" in title:
            misses += missed(ratio_to_bare=(ours.seconds / bare.seconds, 1.5))
    cells = {name: str(one) for name, one in all_of_them.items()}
    return Row(title, cells, target, misses, {k: vars(v) for k, v in all_of_them.items()})


def _ours(bench: Bench, printed: Expected, options: dict[str, bool]) -> Stored:
    bench.server.settle()
    with bench.subject("ours") as subject:
        told = subject.ask("output", command=printed.command, **options)
    exact = _hash_of(Path(told["path"])) == printed.sha256
    exact &= told["lines"] in {None, printed.lines}
    return Stored(printed.lines, told["seconds"], told["peak"], exact=exact)


def _bare(bench: Bench, printed: Expected, *, handler: bool) -> Stored:
    path = bench.scratch / "printed"
    with bench.subject("bare") as subject:
        told = subject.ask("output", command=printed.command, path=str(path), handler=handler)
    exact = _hash_of(path) == printed.sha256
    return Stored(printed.lines, told["seconds"], told["peak"], exact=exact)


def _peer(bench: Bench, module: str, printed: Expected, *, stream: bool) -> Stored:
    bench.server.settle()
    with bench.subject(module) as subject:
        told: dict[str, Any] = subject.ask("output", command=printed.command, handler=stream)
    exact = told["sha256"] == printed.sha256
    return Stored(printed.lines, told["seconds"], told["peak"], exact=exact)


def _hash_of(path: Path) -> str:
    """Reads a file to its end and removes it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    path.unlink()
    return digest
