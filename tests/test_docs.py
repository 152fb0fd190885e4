"""README and docs/ say what is so: each of their blocks is run, in order, as printed."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from uuid import uuid4

import httpx
import psutil
import pytest
from cyclopts import MissingArgumentError
from documents import Block, PageError, Step, inline_code, is_shown, links, masked, steps
from postgres import database
from servers import PrefectServer, free_port
from terminals import terminal
from workers import ask, clone, environment, until

from cloudops_prefect.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"needs", "not run"}
PRINTED_DATABASE = re.compile(r"postgresql\+asyncpg://\S+")
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SECONDS = 60


class Reader:
    """Somebody who does what pages say, in terminals of which some stay open."""

    def __init__(self, env: dict[str, str], home: Path) -> None:
        self.env = env
        self._home = home
        self._open: dict[str, subprocess.Popen[bytes]] = {}
        self._opening = Lock()

    def read(self, page: Path, directory: Path) -> None:
        """Goes through a page from its top to its end."""
        told = ""
        for step in steps(page):
            block = step.block
            if not block.remarks.keys() & ELSEWHERE:
                told = last_told(self._take(step, directory, told)) or told

    def _take(self, step: Step, directory: Path, told: str) -> str:
        block = step.block
        if "file" in block.remarks:
            (directory / block.remarks["file"]).write_text(block.text)
            return ""
        assert told or not re.search(r"\bID\b", block.text), f"{block.place}: of what is this ID?"
        argv = argv_of(block, told)
        if "background" in block.remarks:
            with self._opening:
                self.leave_open(argv, block, directory)
            return ""
        if "terminal" in block.remarks:
            return self._look(argv, step, directory)
        printed = self._run(argv, block, directory)
        for shown in step.shown:
            assert is_shown(shown, printed), f"{block.place} printed\n{printed}"
        return printed

    def _run(self, argv: list[str], block: Block, directory: Path) -> str:
        with subprocess.Popen(
            argv,
            cwd=directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                printed, _ = process.communicate(timeout=SECONDS)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        said = f"{block.place} ended with {process.returncode}\n{printed}"
        assert process.returncode == int(block.remarks.get("exit", 0)), said
        return printed

    def _look(self, argv: list[str], step: Step, directory: Path) -> str:
        *screens, end = step.shown
        with terminal(argv, self.env, columns=160, cwd=directory) as screen:
            for shown in screens:
                screen.until(lambda shown=shown: is_shown(shown, "\n".join(screen.lines)))
            code = screen.wait(SECONDS)
            printed = "\n".join(screen.lines)
        assert code == int(step.block.remarks.get("exit", 0)), printed
        assert is_shown(end, printed), f"{step.block.place} ended with\n{printed}"
        return printed

    def leave_open(self, argv: list[str], block: Block, directory: Path) -> None:
        """Starts what goes on, unless it is open from an earlier page."""
        running = self._open.get(block.text)
        if running is not None and running.poll() is None:
            return
        path = self._home / f"{uuid4()}.out"
        with path.open("wb") as output:
            process = subprocess.Popen(
                argv,
                cwd=directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._open[block.text] = process

        def is_ready() -> bool:
            printed = path.read_text(errors="replace")
            assert process.poll() is None, f"{block.place} has ended\n{printed}"
            return block.remarks["background"] in printed

        until(is_ready, SECONDS)

    def close(self) -> None:
        """Ends what was left open, and what that has started."""
        for process in self._open.values():
            with suppress(psutil.NoSuchProcess):
                started = psutil.Process(process.pid).children(recursive=True)
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                for child in started:
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
                psutil.wait_procs(started, timeout=10)
            process.kill()
            process.wait(10)


def argv_of(block: Block, told: str) -> list[str]:
    if block.language == "python":
        return [sys.executable, "-c", block.text]
    return ["bash", "-euo", "pipefail", "-c", re.sub(r"\bID\b", told, block.text)]


def last_told(printed: str) -> str | None:
    """The execution that something printed tells of: that of its address, else the first."""
    found = re.findall(rf"flow-run/({ID.pattern})", printed) or ID.findall(printed)
    return found[0] if found else None


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


OF_A_READER = {
    "DO_NOT_TRACK": "1",
    # Nothing that a page does may change what the tests run with.
    "PIP_DRY_RUN": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PYTHONUNBUFFERED": "1",
}


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
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_so(readings, page):
    readings[page].result()


LEFT_OUT = [step for page in PAGES for step in steps(page) if step.block.remarks.keys() & ELSEWHERE]


@pytest.mark.server
@pytest.mark.parametrize("step", LEFT_OUT, ids=lambda step: step.block.place)
def test_what_needs_more_is_so_where_there_is_more(step, tmp_path):
    if "not run" in step.block.remarks:
        pytest.skip(step.block.remarks["not run"])
    assert step.block.remarks["needs"] == "PostgreSQL"
    port = free_port()
    env = environment("", tmp_path) | OF_A_READER | {"PREFECT_SERVER_API_PORT": str(port)}
    del env["PREFECT_API_URL"]
    with database() as url:
        text, count = PRINTED_DATABASE.subn(url, step.block.text)
        assert count == 1
        reader = Reader(env, tmp_path)
        try:
            reader.leave_open(["bash", "-euc", text], step.block, tmp_path)
            until(lambda: counts_runs(f"http://127.0.0.1:{port}/api"), 60)
        finally:
            reader.close()


def counts_runs(api: str) -> bool:
    """Whether a server answers out of its database."""
    with suppress(httpx.TransportError):
        return ask("POST", f"{api}/flow_runs/count", {}).is_success
    return False


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
