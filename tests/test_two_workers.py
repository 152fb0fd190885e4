"""One pool, two process workers that share no files, and Prefect's server on PostgreSQL."""

import os
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import anyio
import httpx
import psutil
import pytest
from documents import steps
from engines import gated, shell, until
from postgres import database
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from readers import OF_A_READER, Reader
from servers import PrefectServer, free_port, send_what_is_queued
from workers import ROOT, ask, create_pool, deploy, deployments, environment, process_worker
from workers import until as until_so

from cloudops_prefect import ExecutionEngine, ExecutionPlan, ExecutionStatus, SerialStrategy
from cloudops_prefect.control import RUNNERS_MARK
from cloudops_prefect.stranded import GIVEN_BACK, WORKER_LABEL

POOL = "two-workers"
NAMES = ("first", "second")
LIMIT = 4
MANY = 200 if os.environ.get("CLOUDOPS_SOAK") else 12
PATIENCE = max(300, 5 * MANY)
PRINTED_DATABASE = re.compile(r"postgresql\+asyncpg://\S+")
pytestmark = [pytest.mark.anyio, pytest.mark.server, pytest.mark.timeout(3 * PATIENCE)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a database, which is empty until a server has started."""
    with database() as url:
        yield url


@pytest.fixture(scope="module")
def api(postgres, tmp_path_factory):
    # Prefect's worker of events stays with the server that it was begun with.
    send_what_is_queued()
    variables = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres}
    server = PrefectServer(tmp_path_factory.mktemp("server"), **variables)
    try:
        server.start()
        with temporary_settings({PREFECT_API_URL: server.url}):
            create_pool(server.url, POOL, LIMIT)
            anyio.run(deploy, POOL)
            yield server.url
            send_what_is_queued()
    finally:
        server.stop()


def counts_runs(api: str) -> bool:
    """Whether a server answers out of its database."""
    with suppress(httpx.TransportError):
        return ask("POST", f"{api}/flow_runs/count", {}).is_success
    return False


# The first test, so that it finds the database empty; the server of the others finds its tables.
def test_the_server_of_the_page_creates_its_tables_and_answers(postgres, tmp_path):
    (block,) = [
        step.block
        for step in steps(ROOT / "docs" / "machines.md")
        if step.block.remarks.get("needs") == "PostgreSQL"
    ]
    text, count = PRINTED_DATABASE.subn(postgres, block.text)
    assert count == 1
    port = free_port()
    env = environment("", tmp_path) | OF_A_READER | {"PREFECT_SERVER_API_PORT": str(port)}
    del env["PREFECT_API_URL"]
    reader = Reader(env, tmp_path)
    try:
        reader.leave_open(["bash", "-euc", text], block, tmp_path)
        until_so(lambda: counts_runs(f"http://127.0.0.1:{port}/api"), 240)
    finally:
        reader.close()


@pytest.fixture
def workers(api, tmp_path):
    """Two workers by their names, which are taken for dead after three seconds of silence."""

    def started(name: str):
        (tmp_path / name).mkdir()
        often = {"PREFECT_WORKER_HEARTBEAT_SECONDS": "1"}
        return all_of_them.enter_context(process_worker(api, tmp_path / name, POOL, **often))

    with ExitStack() as all_of_them, ThreadPoolExecutor() as at_once:
        yield dict(zip(NAMES, at_once.map(started, NAMES), strict=True))


@pytest.fixture
async def engine(api, config):
    async with ExecutionEngine(config, deployments=deployments(POOL)) as engine:
        yield engine


async def runs_in(state: StateType) -> list:
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state])))
    async with get_client() as client:
        return await client.read_flow_runs(
            flow_run_filter=wanted,
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        )


async def pending_of(worker: str) -> list:
    """The runs that a worker took and that have not begun."""
    runs = await runs_in(StateType.PENDING)
    return [run for run in runs if run.labels.get(WORKER_LABEL) == worker]


def begun_by(worker) -> set[str]:
    """The runs for which a worker has started processes, also those that it has told nobody of."""
    begun = set()
    for process in psutil.Process(worker.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            begun.add(process.environ().get(RUNNERS_MARK))
    return begun


async def kill_between_taking_and_starting(
    name: str, worker, submit: Callable[[], Awaitable[None]]
) -> list:
    """Kills a worker while it has runs for which it has started no process; returns their ids."""
    stranded: list = []

    async def has_just_taken_some() -> bool:
        if not await pending_of(name):
            # The other worker may have taken all that was left.
            if not await runs_in(StateType.SCHEDULED):
                await submit()
            return False
        worker.send_signal(signal.SIGSTOP)
        runs = await pending_of(name)
        started = begun_by(worker)
        stranded.extend(run.id for run in runs if str(run.id) not in started)
        worker.send_signal(signal.SIGKILL if stranded else signal.SIGCONT)
        return bool(stranded)

    await until(has_just_taken_some, PATIENCE)
    worker.wait(10)
    return stranded


async def test_every_execution_completes_exactly_once_though_a_worker_is_killed(
    engine, workers, tmp_path
):
    counter, gate = tmp_path / "counter", tmp_path / "gate"
    # A command that fails is logged to the console, which nobody reads after the worker's death.
    plan = ExecutionPlan(
        strategy=SerialStrategy(stop_on_error=False),
        commands=[gated(gate, "exit 3", timeout_ms=600_000), shell(f"echo 0 >> {counter}")],
    )
    begun = await engine.execute_plan(plan)
    ids: list = []

    async def submit() -> None:
        number = len(ids) + 1
        ids.append(await engine.execute(shell(f"echo {number} >> {counter}; echo {number}")))

    while len(ids) + 1 < MANY:
        await submit()

    async def is_in_the_middle() -> bool:
        return counter.exists() and len(counter.read_text().split()) >= MANY // 4

    await until(is_in_the_middle, PATIENCE)
    async with get_client() as client:
        victim = (await client.read_flow_run(begun)).labels[WORKER_LABEL]
    stranded = await kill_between_taking_and_starting(victim, workers[victim], submit)
    # The processes of what it has begun live on.
    gate.touch()
    with anyio.fail_after(PATIENCE):
        planned = await engine.wait(begun)
        results = [await engine.wait(execution_id) for execution_id in ids]
    assert [one.exit_code for one in planned.results] == [3, 0]
    assert {one.status for one in results} == {ExecutionStatus.COMPLETED}
    assert [one.stdout for one in results] == [f"{n}\n" for n in range(1, len(ids) + 1)]
    assert Counter(map(int, counter.read_text().split())) == dict.fromkeys(range(len(ids) + 1), 1)
    async with get_client() as client:
        for execution_id in stranded:
            assert (await client.read_flow_run(execution_id)).labels[WORKER_LABEL] != victim
            states = await client.read_flow_run_states(execution_id)
            assert any((state.message or "").startswith(GIVEN_BACK) for state in states)
