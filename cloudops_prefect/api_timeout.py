"""Runs whose end nobody hears of, since the Prefect API is gone: given up after a while.

A run that is cancelled is always given up. One that ends by itself waits for the API, which may
come back; only where `ended_runs_too` is set is it given up as well.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.services import open_here

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

    from cloudops_prefect.control import RunControl

ANSWER_TIMEOUT_SECONDS = 50.0
"""Seconds without an answer from the API after which a run is given up."""
LOOK_INTERVAL_SECONDS = 5.0
INSISTENCE = 1.0

ended_runs_too = False
"""Whether this process lives no longer than its runs, as a command line does."""
given_up: set[UUID] = set()
"""The runs of this process that were given up."""

logger = logging.getLogger("cloudops_prefect.api_timeout")


@asynccontextmanager
async def unless_unheard(
    client: PrefectClient, flow_run_id: UUID, control: RunControl
) -> AsyncGenerator[None]:
    """End what is inside when its run is to end and the API does not answer in time.

    Raises:
        ExecutionIOError: if that came to pass.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (a coroutine is run by one)
    given_up.discard(flow_run_id)

    async def give_up() -> None:
        await _until_over(flow_run_id, control)
        await _until_silent(client, flow_run_id)
        given_up.add(flow_run_id)
        # Prefect tries for minutes to tell of the first one.
        while True:
            task.cancel()
            await asyncio.sleep(INSISTENCE)

    watching = asyncio.create_task(give_up())
    try:
        yield
    except asyncio.CancelledError:
        if flow_run_id in given_up:
            raise ExecutionIOError(
                f"no answer from the Prefect API for {ANSWER_TIMEOUT_SECONDS:g} s"
            ) from None
        raise
    finally:
        watching.cancel()


async def _until_over(flow_run_id: UUID, control: RunControl) -> None:
    """Waits until nothing is left to be done for a run but to tell of it."""
    if not ended_runs_too:
        await control.until_cancelled()
    while not (control.cancelled or _has_ended(flow_run_id)):
        await asyncio.sleep(INSISTENCE)


def _has_ended(flow_run_id: UUID) -> bool:
    services = open_here()
    run = services.runs.get(flow_run_id) if services else None
    try:
        return run is not None and bool(run.in_order())
    except KeyError:
        # A command has no result yet.
        return False


async def _until_silent(client: PrefectClient, flow_run_id: UUID) -> None:
    clock = asyncio.get_running_loop().time
    answered, told = clock(), False
    while (left := answered + ANSWER_TIMEOUT_SECONDS - clock()) > 0:
        await asyncio.sleep(min(LOOK_INTERVAL_SECONDS, left))
        try:
            # One that has much to do may take its time.
            async with asyncio.timeout(
                max(min(ANSWER_TIMEOUT_SECONDS / 2, answered + ANSWER_TIMEOUT_SECONDS - clock()), 0)
            ):
                await client.read_flow_run(flow_run_id)
            answered, told = clock(), False
        except Exception as error:  # noqa: BLE001 (whatever it is, it is no answer)
            logger.debug("The API doesn't answer: %s", error)
            if not told:
                logger.warning("Run %s is over, but the Prefect API does not answer", flow_run_id)
            told = True
