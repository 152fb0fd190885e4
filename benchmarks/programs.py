"""Whole programs, from their start to their end: the command line, and Python with Prefect."""

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.bench import ROOT, Bench
from benchmarks.measures import Row, Sample, missed

IMPORTS = """
import asyncio
from prefect import flow, task

@task
async def run_command():
    process = await asyncio.create_subprocess_exec("bash", "-c", "true")
    await process.wait()
"""
RAW_TASK = IMPORTS + "asyncio.run(run_command())"
RAW_FLOW = IMPORTS + "@flow\nasync def main():\n    await run_command()\nasyncio.run(main())"
CLOUDOPS = str(Path(sys.executable).with_name("cloudops"))


def cold_start(bench: Bench) -> list[Row]:
    argv = {
        "ours": [CLOUDOPS, "shell", "true"],
        "raw Prefect": [sys.executable, "-c", RAW_TASK],
        "in a flow": [sys.executable, "-c", RAW_FLOW],
    }
    taken = _interleaved(bench, argv)
    ratio = taken["ours"].median / taken["raw Prefect"].median
    raw = f"{taken['raw Prefect']}; ratio {ratio:.2f}; in a flow {taken['in a flow']}"
    misses = missed(ratio=(ratio, 1.1))
    cells = {"ours": str(taken["ours"]), "raw Prefect": raw}
    figures = {name: sample.figures() for name, sample in taken.items()}
    return [Row("cold start of `cloudops shell true`", cells, "≤ 1.1 of raw", misses, figures)]


def command_line(bench: Bench) -> list[Row]:
    plan = bench.scratch / "plan.json"
    count = 100 if bench.quick else 1000
    commands = [{"command": {"type": "shell", "command": f"echo {n}"}} for n in range(count)]
    plan.write_text(json.dumps({"strategy": {"type": "serial"}, "commands": commands}))
    taken = _interleaved(
        bench,
        {"`cloudops --help`": [CLOUDOPS, "--help"]}
        | {f"`cloudops validate`, {count} commands": [CLOUDOPS, "validate", str(plan)]},
    )
    return [
        Row(
            title,
            {"ours": str(sample)},
            "< 0.5 s",
            missed(seconds=(sample.median, 0.5)),
            sample.figures(),
        )
        for title, sample in taken.items()
    ]


def _interleaved(bench: Bench, argv: dict[str, list[str]]) -> dict[str, Sample]:
    taken: dict[str, list[float]] = {name: [] for name in argv}
    # Once before: files are to be in memory, and modules compiled.
    for measured in [False, *[True] * (2 if bench.quick else bench.repeats + 2)]:
        for name, command in argv.items():
            bench.server.settle(5)
            if (seconds := _seconds(bench, command)) and measured:
                taken[name].append(seconds)
    return {name: Sample(tuple(values)) for name, values in taken.items()}


def _seconds(bench: Bench, argv: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, env=bench.environment(), cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - started
