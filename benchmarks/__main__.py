"""`python -m benchmarks`: measures, prints the table, and writes it with a file for tools."""

import argparse
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import commands, latency, output, programs, report, scale, stops
from benchmarks.bench import Bench, say
from benchmarks.measures import Row
from benchmarks.server import Server

PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "commands": commands.measure,
    "scale": scale.measure,
    "compile": latency.compile_plan,
    "starts": latency.starts,
    "cold": programs.cold_start,
    "cli": programs.command_line,
    "output": output.measure,
    "stops": stops.measure,
    # The last: its ten thousand executions stay in the server's database.
    "reads": latency.reads,
}


def main() -> None:
    options = _options()
    # The server and the subjects end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    measured: dict[str, list[Row]] = {}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        directory = Path(scratch)
        with Server(directory / "server") as server:
            bench = Bench(server, directory, options.repeats, options.runs, options.quick)
            for part in options.only or PARTS:
                say(part)
                server.settle()
                try:
                    measured[part] = PARTS[part](bench)
                except Exception:  # noqa: BLE001 (a part that fails must not cost the others)
                    traceback.print_exc()
                    failed.append(part)
                if not options.quick:
                    report.save(measured)
    say("done")
    print(report.table_of(measured) if options.quick else report.TABLE.read_text())
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="this part, not all")
    parser.add_argument("--quick", action="store_true", help="small workloads; writes no files")
    parser.add_argument("--repeats", type=int, default=3, help="how often workloads are measured")
    parser.add_argument("--runs", type=int, default=3, help="stops of each kind in each way")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.runs = min(options.repeats, 2), min(options.runs, 2)
    return options


if __name__ == "__main__":
    main()
