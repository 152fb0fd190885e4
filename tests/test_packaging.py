"""What is built and installed."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from documents import inline_code, links

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    return zipfile.ZipFile(built("wheel", tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> tarfile.TarFile:
    return tarfile.open(built("sdist", tmp_path_factory.mktemp("sdist")))


def built(kind: str, target: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", target],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = target.iterdir()
    return path


def metadata_of(wheel: zipfile.ZipFile) -> Message:
    (path,) = [path for path in wheel.namelist() if path.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(path).decode())


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
    metadata = metadata_of(wheel)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_description_has_no_link_to_a_file_and_names_the_file(wheel, tmp_path):
    metadata = metadata_of(wheel)
    assert metadata["Description-Content-Type"] == "text/markdown"
    description = tmp_path / "description.md"
    description.write_text(metadata.get_payload())
    readme = ROOT / "README.md"
    to_files = [link for link in links(readme) if "://" not in link]
    assert "docs/running.md" in to_files
    assert [link for link in links(description) if "://" not in link] == []
    assert {*to_files} <= {*inline_code(description)}
    # Neither HTML nor a link of another form leads to a file.
    text = re.sub(r"(?s)```.*?```|`[^`]*`", "", description.read_text())
    assert not re.search(r"href=|src=|\]\((?!https?:)|\]\[|^\[[^\]]+\]:", text, re.MULTILINE)


def test_the_description_says_what_the_readme_says(wheel):
    description = metadata_of(wheel).get_payload()
    readme = (ROOT / "README.md").read_text()
    assert blocks_of(description) == blocks_of(readme)
    headings = re.findall(r"(?m)^#+ .*$", readme)
    assert len(headings) > 5
    assert re.findall(r"(?m)^#+ .*$", description) == headings


def blocks_of(text: str) -> list[str]:
    return re.findall(r"(?ms)^```.*?^```$", text)


def test_the_source_distribution_has_every_file_that_the_description_names(sdist):
    names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {link for link in links(ROOT / "README.md") if "://" not in link} <= names


def test_every_dependency_is_pinned_by_a_plain_line():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;@]+", line) for line in lines)
    pinned = {normalised(line.split("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
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
