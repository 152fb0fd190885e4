"""Flows that do not await what they call, and what the log of their run says of it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from engines import shell, until
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings

from cloudops_prefect import ExecutionPlan, compile_plan, run_plan, run_shell

pytestmark = [pytest.mark.anyio, pytest.mark.server]

LATE = "was not awaited while the flow ran: it runs after the end of the flow run"
NEVER = "was called and not awaited: nothing was run"
END = "Finished in state"
SAYS = shell("echo said")
PLAN = ExecutionPlan(commands=[SAYS])


@pytest.fixture(autouse=True)
def settings(api, config, monkeypatch):
    monkeypatch.setenv("CLOUDOPS_LOG_DIR", str(config.log_dir))


async def log_of(run_id: str, expected: str) -> list[str]:
    """Returns what the log of a run says, once it says what is expected and that the run ended."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    messages: list[str] = []

    async def is_said() -> bool:
        async with get_client() as client:
            messages[:] = [log.message for log in await client.read_logs(wanted)]
        return all(any(text in one for one in messages) for text in (expected, END))

    await until(is_said)
    return [one for one in messages if "awaited" in one]


async def called(body) -> tuple[str, object]:
    """Calls a synchronous flow with this body; returns the id of its run and its result."""
    ids: list[str] = []

    @flow
    def nightly():
        ids.append(flow_run.id)
        return body()

    # In a thread without a loop, as in a program.
    result = await anyio.to_thread.run_sync(nightly)
    return ids[0], result


@pytest.mark.parametrize(
    ("body", "name", "advice"),
    [
        (lambda: run_shell(SAYS), "run_shell", "run_shell.submit(…).result()"),
        (lambda: run_shell.with_options(retries=1)(SAYS), "run_shell", "run_shell.submit"),
        (compile_plan(PLAN), "run-plan", "asyncio.run(…)"),
        (lambda: run_plan(PLAN), "run-plan", "asyncio.run(…)"),
    ],
    ids=["task", "task with options", "compiled plan", "run_plan"],
)
async def test_a_call_that_a_synchronous_flow_returns_is_reported(body, name, advice):
    run_id, result = await called(body)
    (warning,) = await log_of(run_id, LATE)
    assert warning.startswith(f"{name} {LATE}")
    assert advice in warning
    # It has run nevertheless, as Prefect lets it.
    assert result.status == "completed"


@pytest.mark.parametrize("call", [run_shell, lambda one: compile_plan(PLAN)()])
async def test_a_call_that_a_synchronous_flow_forgets_is_reported(call):
    def forget() -> None:
        call(SAYS)

    with pytest.warns(RuntimeWarning, match="coroutine 'run.*' was never awaited") as warnings:
        run_id, _ = await called(forget)
    assert len([one for one in warnings if "awaited" in str(one.message)]) == 1
    (error,) = await log_of(run_id, NEVER)
    assert "; write `" in error


async def test_a_call_that_an_asynchronous_flow_returns_is_reported():
    ids: list[str] = []

    @flow
    async def nightly():
        ids.append(flow_run.id)
        return run_shell(SAYS)

    assert (await nightly()).stdout == "said\n"
    (warning,) = await log_of(ids[0], LATE)
    assert "write `await run_shell(…)`" in warning


async def test_a_call_that_is_awaited_is_not_reported(api):
    def run_elsewhere(call):
        with temporary_settings({PREFECT_API_URL: api}):
            return asyncio.run(call)

    def body() -> list[str]:
        with ThreadPoolExecutor(1) as thread:
            # A thread that knows nothing of the flow.
            elsewhere = thread.submit(run_elsewhere, run_shell(SAYS)).result()
        return [
            elsewhere.stdout,
            run_shell.submit(SAYS).result().stdout,
            asyncio.run(run_shell(SAYS)).stdout,
            asyncio.run(compile_plan(PLAN)()).results[0].stdout,
        ]

    run_id, printed = await called(body)
    assert printed == ["said\n"] * 4
    assert await log_of(run_id, END) == []


async def test_wrong_arguments_are_refused_at_the_call():
    def body() -> str:
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            run_shell(SAYS, force=True)
        return "refused"

    assert (await called(body))[1] == "refused"
