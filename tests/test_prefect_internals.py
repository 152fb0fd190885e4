"""What the package takes from Prefect: public names, and the exceptions of one module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import PROGRAMS
from servers import with_migrated_database, without_api

import cloudops_prefect

PACKAGE = Path(cloudops_prefect.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
EXCEPTIONS = "prefect_internals.py"


def imported_from_prefect(tree: ast.AST) -> Iterator[str]:
    """What a module imports of Prefect, with its whole name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == "prefect")


def named_by_strings(tree: ast.AST) -> Iterator[str]:
    """Names with an underscore that a module gives to `getattr`, `setattr` and their like."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=called), args=[_, ast.Constant(value=str(name)), *_]):
                if called in {"getattr", "setattr", "hasattr"} and name.startswith("_"):
                    yield name


def is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


@pytest.mark.parametrize("source", SOURCES)
def test_no_module_imports_a_private_name_of_prefects(source):
    tree = ast.parse(SOURCES[source].read_text())
    assert [name for name in imported_from_prefect(tree) if is_private(name)] == []


def test_one_module_reaches_into_prefect():
    reaching = {
        source
        for source, path in SOURCES.items()
        for _ in named_by_strings(ast.parse(path.read_text()))
    }
    assert reaching == {EXCEPTIONS}


def test_one_module_names_the_events_of_task_runs_to_read_their_ids():
    naming = {
        source: [
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and "prefect.task-run" in str(node.value)
        ]
        for source, path in SOURCES.items()
    }
    assert {source: names for source, names in naming.items() if names} == {
        "event_delivery.py": ["prefect.task-run"]
    }


@pytest.mark.server
def test_a_plan_completes_untuned_with_a_prefect_that_has_none_of_it(tmp_path):
    with_migrated_database(tmp_path)
    argv = [sys.executable, str(PROGRAMS / "runs_untuned.py")]
    done = subprocess.run(argv, env=without_api(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["completed: one", "completed: one"]
    said = [
        line.partition("This Prefect no longer has ")[2].partition(":")[0]
        for line in done.stderr.splitlines()
        if "This Prefect no longer has" in line
    ]
    assert sorted(said) == [
        "a client's transport",
        "the command of the temporary server",
        "the events client that is set",
    ]
