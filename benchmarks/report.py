"""The table for people and the file for tools."""

import json
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measures import Row

COLUMNS = [
    "ours",
    "raw Prefect",
    "shell_run_command",
    "ShellOperation",
    "bare asyncio",
    "xargs -P",
]
STOPS = "stops"
HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
TABLE = HERE / "results.md"


def save(measured: dict[str, list[Row]]) -> None:
    """Writes both files, with what earlier runs have told of the parts left out.

    Figures of another machine are dropped: they are not to be compared.
    """
    machine = _machine()
    kept = _kept(machine)
    for part, rows in measured.items():
        kept[part] = [asdict(row) for row in rows]
    RESULTS.write_text(json.dumps({"machine": machine, "parts": kept}, indent=1) + "\n")
    TABLE.write_text(_markdown(machine, kept))


def table_of(measured: dict[str, list[Row]]) -> str:
    """Returns the table of these parts alone."""
    return _markdown(_machine(), {k: [asdict(one) for one in v] for k, v in measured.items()})


def _kept(machine: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    if not RESULTS.exists():
        return {}
    known = json.loads(RESULTS.read_text())
    same = {k: v for k, v in known["machine"].items() if k != "date"} == {
        k: v for k, v in machine.items() if k != "date"
    }
    return known["parts"] if same else {}


def _markdown(machine: dict[str, str], parts: dict[str, list[dict[str, Any]]]) -> str:
    rows = [row for part, found in parts.items() if part != STOPS for row in found]
    tables = [", ".join(f"{name} {value}" for name, value in machine.items() if value)]
    if rows:
        columns = [one for one in COLUMNS if any(one in row["cells"] for row in rows)]
        tables.append(
            _table(["", *columns, "target", "met"], [_line(row, columns) for row in rows])
        )
    if stops := parts.get(STOPS):
        columns = list(stops[0]["cells"])
        tables.append(_caption_of(stops))
        tables.append(
            _table(["", *columns, "target", "met"], [_line(row, columns) for row in stops])
        )
    return "\n\n".join(tables) + "\n"


def _line(row: dict[str, Any], columns: list[str]) -> list[str]:
    return [row["name"], *(row["cells"].get(one, "") for one in columns), row["target"], _met(row)]


def _caption_of(stops: list[dict[str, Any]]) -> str:
    cells = [cell for row in stops for cell in row["figures"].values()]
    runs = min(len(cell["values"]) for cell in cells)
    survivors = sum(cell["survivors"] for cell in cells)
    return (
        "Milliseconds from the request until the last process was gone: median / worst of "
        f"{runs} runs each. Processes that were left in the whole table: {survivors or 'none'}."
    )


def _met(row: dict[str, Any]) -> str:
    if row["misses"] is None:
        return ""
    return "no: " + "; ".join(row["misses"]) if row["misses"] else "yes"


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines]
    )


def _machine() -> dict[str, str]:
    return {
        "CPU": f"{_cpu_model()}, {psutil.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "Prefect": version("prefect"),
        "prefect-shell": version("prefect-shell"),
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
