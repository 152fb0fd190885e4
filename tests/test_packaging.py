"""What is built and installed."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", target],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = target.iterdir()
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_only(wheel):
    names = wheel.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cloudops_prefect"}
    assert "cloudops_prefect/py.typed" in names
    assert "cloudops_prefect/cli/__init__.py" in names
    modules = {name for name in names if name.startswith("cloudops_prefect/")}
    assert {Path(name).suffix for name in modules} == {".py", ".typed"}


def test_the_wheel_brings_its_licence_and_its_entry_points(wheel):
    def read(name: str) -> str:
        (path,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
        return wheel.read(path).decode()

    assert "Apache License" in read("licenses/LICENSE")
    assert "cloudops = cloudops_prefect.cli:main" in read("entry_points.txt")
    assert "[prefect.collections]" in read("entry_points.txt")
    metadata = Parser().parsestr(read("METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_every_dependency_is_pinned_by_a_plain_line():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;@]+", line) for line in lines)
    pinned = {normalised(line.split("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["aws"],
        *project["dependency-groups"]["dev"],
    ]
    names = {normalised(re.split(r"[\[<>=! ]", requirement)[0]) for requirement in wanted}
    assert names - pinned == set()


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_ci_runs_the_tests():
    assert os.access(ROOT / ".ci/run", os.X_OK)
    ran = (ROOT / ".ci/run").read_text().splitlines()
    assert ran[-2:] == ["make test", "make test-newest"]


def test_the_scripts_of_the_example_are_well_formed():
    for script in (ROOT / "examples/scripts").iterdir():
        subprocess.run(["bash", "-n", script], check=True)
