"""What people see and do in Prefect's UI, in a Chromium that is installed here."""

import re
import shutil
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import pytest
from engines import shell, until
from prefect.settings import PREFECT_API_URL, temporary_settings
from running import MARK, processes
from workers import ask, create_pool, deploy, process_worker

from cloudops_prefect import (
    DependencyGraphStrategy,
    ExecutionConfig,
    ExecutionEngine,
    ExecutionMetadata,
    ExecutionPlan,
    ExecutionStatus,
)

playwright = pytest.importorskip(
    "playwright.async_api", reason="Playwright can't be imported", exc_type=ImportError
)
expect = playwright.expect

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium in PATH"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A plan's graph would be drawn by the processor, over and over.
    "--disable-3d-apis",
    # The page tells its maker that it is looked at.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
POOL = "ui"
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
async def page(tmp_path_factory) -> AsyncIterator:
    expect.set_options(timeout=PATIENCE_MS)
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"), executable_path=CHROMIUM, args=FLAGS, headless=True
        )
        browser.set_default_timeout(PATIENCE_MS)
        try:
            yield browser.pages[0]
        finally:
            await browser.close()


@pytest.fixture(scope="module")
async def engine(prefect_api, tmp_path_factory) -> AsyncIterator[ExecutionEngine]:
    config = ExecutionConfig(log_dir=tmp_path_factory.mktemp("logs"), grace_period_ms=1000)
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        async with ExecutionEngine(config) as engine:
            yield engine


def ui(api: str, path: str) -> str:
    return f"{api.removesuffix('/api')}/v2/{path}"


def page_of_run(api: str, run_id: UUID | str) -> str:
    return ui(api, f"runs/flow-run/{run_id}")


@pytest.fixture(scope="module")
async def failed_plan(prefect_api, engine) -> str:
    """The page of a plan's run that has ended, since one of its commands failed."""
    plan = ExecutionPlan(
        description="Release of the shop",
        strategy=DependencyGraphStrategy(dependencies={1: [0], 2: [0], 3: [1, 2]}),
        commands=[
            shell("echo all is fetched", name="fetch"),
            shell("echo all is built", name="build"),
            shell("echo two tests fail >&2; exit 3", name="check"),
            shell("echo to production"),
        ],
        metadata=ExecutionMetadata(tags={"team": "ops"}, source="chat"),
    )
    execution_id = await engine.execute_plan(plan)
    await engine.wait(execution_id, timeout=60)
    return page_of_run(prefect_api, execution_id)


async def test_a_plans_graph_has_its_edges_and_ends_where_the_plan_does(page, failed_plan):
    # It is drawn as pixels, so that only what it is drawn from can be read.
    async with page.expect_response("**/graph-v2*") as told:
        await page.goto(failed_plan)
    graph = await (await told.value).json()
    nodes = dict(graph["nodes"])
    edges = {
        (nodes[parent["id"]]["label"], node["label"])
        for node in nodes.values()
        for parent in node["parents"]
    }
    assert edges == {
        ("fetch", "build"),
        ("fetch", "check"),
        ("build", "echo to production"),
        ("check", "echo to production"),
    }
    assert all(node["end_time"] for node in nodes.values())


async def show(page, url: str, tab: str) -> None:
    """Shows a tab of a run's page, which is loaded only if it isn't there: that takes seconds."""
    if not page.url.startswith(url):
        await page.goto(url)
    await page.get_by_role("tab", name=tab).click()


async def test_a_plans_run_is_recognised_and_tells_what_was_printed(page, failed_plan):
    await show(page, failed_plan, "Logs")
    main = page.get_by_role("main")
    await expect(main).to_contain_text("Failed")
    for text in ("Release of the shop", "team:ops", "source:chat"):
        await expect(main.get_by_role("navigation").first).to_contain_text(text)
    logs = main.get_by_role("log")
    for text in ("all is fetched", "all is built", "two tests fail"):
        await expect(logs).to_contain_text(text)
    await expect(logs).not_to_contain_text("to production")


async def test_a_plans_task_runs_have_the_names_of_its_commands(page, failed_plan):
    await show(page, failed_plan, "Task Runs")
    rows = page.get_by_role("tabpanel").get_by_role("listitem")
    for name, state in (
        ("fetch", "Completed"),
        ("build", "Completed"),
        ("check", "Failed"),
        ("echo to production", "Cancelled"),
    ):
        link = page.get_by_role("link", name=name, exact=True)
        await expect(rows.filter(has=link, has_text=state)).to_have_count(1)


async def test_a_plans_artifacts_tell_how_its_commands_ended(page, failed_plan):
    await show(page, failed_plan, "Artifacts")
    artifacts = page.get_by_role("tabpanel")
    await expect(artifacts).to_contain_text("How many of the 4 commands have ended")
    await artifacts.get_by_role("link", name="cloudops-results").click()
    await page.locator("a[href*='/artifacts/artifact/']").first.click()
    for row in (r"fetch completed 0 \d", r"check failed 3 \d", "echo to production cancelled$"):
        await expect(page.get_by_role("row", name=re.compile(row))).to_be_visible()
    await show(page, failed_plan, "Artifacts")
    await artifacts.get_by_role("link", name="cloudops-progress").click()
    await page.locator("a[href*='/artifacts/artifact/']").first.click()
    await expect(page.get_by_role("main")).to_contain_text("Progress: 100%")


async def test_cancel_ends_a_command_that_this_process_runs(page, prefect_api, engine):
    mark = uuid4().hex
    execution_id = await engine.execute(shell("echo ready; sleep 60", env={MARK: mark}))
    await page.goto(f"{page_of_run(prefect_api, execution_id)}?tab=Logs")
    await expect(page.get_by_role("main").get_by_role("log")).to_contain_text("ready")
    assert processes(mark)
    await page.get_by_role("button", name="Open menu").click()
    await page.get_by_role("menuitem", name="Cancel").click()
    await page.get_by_role("button", name="Cancel Flow Run").click()
    result = await engine.wait(execution_id, timeout=20)
    assert result.status is ExecutionStatus.CANCELLED
    assert processes(mark) == []
    await expect(page.get_by_role("main")).to_contain_text("Cancelled")


@pytest.fixture(scope="module")
def worker(prefect_api, tmp_path_factory) -> Iterator[None]:
    create_pool(prefect_api, POOL)
    with process_worker(prefect_api, tmp_path_factory.mktemp("ui-worker"), POOL):
        yield


async def started_by_form(prefect_api: str) -> str:
    wanted = {"deployments": {"name": {"any_": [POOL]}}}
    runs: list[dict] = []

    async def is_there() -> bool:
        runs[:] = ask("POST", f"{prefect_api}/flow_runs/filter", wanted).json()
        return bool(runs)

    await until(is_there, 240)
    (run,) = runs
    return run["id"]


async def test_a_shell_command_in_the_form_is_run(page, prefect_api, engine, worker):
    await deploy(POOL)
    path = f"{prefect_api}/deployments/name/run-command/{POOL}"
    await page.goto(ui(prefect_api, f"deployments/deployment/{ask('GET', path).json()['id']}/run"))
    await expect(page.get_by_role("tab", name="ShellCommand", selected=True)).to_be_visible()
    await page.get_by_role("textbox", name="Command", exact=True).fill("echo typed by hand")
    await page.get_by_role("button", name="Submit").click()
    # The page links to it for some seconds only.
    flow_run_id = await started_by_form(prefect_api)
    await page.goto(ui(prefect_api, f"runs/flow-run/{flow_run_id}"))
    main = page.get_by_role("main")
    await expect(main.get_by_role("navigation").first).to_contain_text("echo typed by hand")
    await expect(main).to_contain_text("Completed")
    # The page asks for no logs any more once the run has ended.
    await page.reload()
    await expect(main.get_by_role("log")).to_contain_text("typed by hand")
    result = await engine.get_result(page.url.partition("/flow-run/")[2].partition("?")[0])
    assert (result.status, result.stdout) == (ExecutionStatus.COMPLETED, "typed by hand\n")
