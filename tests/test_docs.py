"""README and docs/ say what is so: each of their blocks is run, in order, as printed."""

import re
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from cyclopts import MissingArgumentError
from documents import PageError, inline_code, is_shown, links, masked, steps
from readers import ELSEWHERE, OF_A_READER, Reader
from servers import PrefectServer
from workers import clone, environment

from cloudops_prefect.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Iterator[Reader]:
    home = tmp_path_factory.mktemp("reader")
    # The home of the server too, so that its database is where `prefect server database` looks.
    (home / "prefect").mkdir()
    server = PrefectServer(home / "prefect")
    reader = Reader(environment(server.url, home) | OF_A_READER, home)
    try:
        server.start()
        yield reader
    finally:
        reader.close()
        server.stop()


def installed_clone(target: Path) -> Path:
    clone(target)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (target / name).write_bytes((ROOT / name).read_bytes())
    (target / ".venv").mkdir()
    (target / ".venv/bin").symlink_to(Path(sys.executable).parent)
    # Newer than what it is made from, so that make installs nothing into the tests' environment.
    (target / ".venv/.installed").touch()
    return target


@pytest.fixture(scope="module")
def readings(reader, request, tmp_path_factory) -> Iterator[dict[Path, Future[None]]]:
    """The pages that are asked for, two at a time: mostly they wait."""
    tests = [one for one in request.session.items if one.originalname == "test_a_page_is_so"]
    with ThreadPoolExecutor(2) as readers:
        yield {
            (page := test.callspec.params["page"]): readers.submit(
                reader.read, page, installed_clone(tmp_path_factory.mktemp(page.stem) / "shop")
            )
            for test in tests
        }


@pytest.mark.server
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_so(readings, page):
    readings[page].result()


LEFT_OUT = [step for page in PAGES for step in steps(page) if step.block.remarks.keys() & ELSEWHERE]
WHERE_IT_IS_RUN = {
    "the local server": "test_cli.py",
    "PostgreSQL": "test_two_workers.py",
}
WHY_IT_IS_NOT_RUN = {
    "it is what runs this",
    "only an administrator may",
    "the tests build the wheel without asking a package index",
    "the tests have the package installed",
}


@pytest.mark.parametrize("step", LEFT_OUT, ids=lambda step: step.block.place)
def test_what_is_left_out_here_is_run_elsewhere_or_says_why_not(step):
    need = step.block.remarks.get("needs")
    if need is None:
        assert step.block.remarks["not run"] in WHY_IT_IS_NOT_RUN
    else:
        elsewhere = (ROOT / "tests" / WHERE_IT_IS_RUN[need]).read_text()
        assert f'.get("needs") == "{need}"' in elsewhere


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_the_text_exist(page):
    for code in inline_code(page):
        name, *tokens = shlex.split(code) or [""]
        if name == "cloudops" and "--help" not in tokens:
            with suppress(MissingArgumentError):
                app.parse_args(tokens, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in links(page):
        if not link.startswith(("http:", "https:")):
            assert (page.parent / link.partition("#")[0]).exists(), link


def test_the_readme_is_short_and_leads_to_every_page():
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) < 250
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= {*links(readme)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```js\n1\n```", "a block of 'js'"),
        ("```yaml\na: 1\n```", "a block of 'yaml'"),
        ("```\ncloudops list\n```", "a block of 'fence'"),
        ("    cloudops list\n", "a block of 'code_block'"),
        ("- a list\n\n  ```ini\n  a = 1\n  ```", "a block of 'ini'"),
        ("```text\nprinted\n```", "nothing was run"),
        ("<!-- file: a.yaml -->\n```yaml\na: 1\n```", "no later block uses a.yaml"),
        ("<!-- skip -->\n```sh\ntrue\n```", "unknown comment {'skip'}"),
    ],
)
def test_a_block_that_nobody_runs_is_refused(tmp_path, text, complaint):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(PageError, match=re.escape(complaint)):
        steps(page)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```sh\nfalse | true\n```", "page.md:1 ended with 1"),
        ("```sh\necho one\n```\n```text\ntwo\n```", "page.md:1 printed"),
        ("```python\nprint(1 / 0)\n```", "ZeroDivisionError"),
        ("```sh\ncloudops status ID\n```", "of what is this ID?"),
        ("<!-- background: ready -->\n```sh\necho steady\n```", "page.md:2 has ended"),
        ("<!-- terminal -->\n```sh\necho one\n```\n```text\ntwo\n```", "page.md:2 ended with"),
    ],
)
def test_a_page_that_is_not_so_is_found_out(tmp_path, text, complaint):
    page = tmp_path / "page.md"
    page.write_text(text)
    reader = Reader(environment("", tmp_path), tmp_path)
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        reader.read(page, tmp_path)
    reader.close()


def test_what_differs_from_run_to_run_is_not_compared():
    printed = "check  completed  0  1m 02s\nlog: /tmp/a/b.log\none\ntwo\n"
    assert is_shown("check completed 0 0.1s\nlog: /var/x/y.log\n...\ntwo\n", printed)
    assert not is_shown("check completed 1 0.1s\n...", printed)
    assert masked("at http://127.0.0.1:4200/x  █████") == ["at URL █"]
