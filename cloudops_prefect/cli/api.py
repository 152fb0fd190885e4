"""What the command line asks the Prefect API itself, beside what the engine asks."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort

from cloudops_prefect import history, local_api
from cloudops_prefect.api_errors import api
from cloudops_prefect.cli.arguments import LAST
from cloudops_prefect.errors import ExecutionNotFoundError, InvalidPlanError, ValidationError
from cloudops_prefect.execution_list import read_list
from cloudops_prefect.naming import FLOW_NAMES
from cloudops_prefect.parameters import request_ids
from cloudops_prefect.plan_run import task_run_id
from cloudops_prefect.plan_store import with_stored_plan
from cloudops_prefect.states import status_of

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

SEARCHED = 2000
"""Among how many of the newest executions a shortened id is looked for."""
_PAGE = 200
_LISTED = 10
_WHOLE = 32


def ui_url(execution_id: UUID, *, in_plan: bool = False) -> str:
    """The address of an execution in Prefect's UI; empty if the API has no known UI.

    Args:
        execution_id: Which.
        in_plan: Whether it is one command of a plan.
    """
    return local_api.ui_url("task-run" if in_plan else "flow-run", execution_id)


async def resolve(text: str) -> UUID:
    """Return the id that a text stands for; Prefect's API finds whole ids only.

    Args:
        text: An id, its beginning, or `last` for the first execution that `cloudops list` shows.

    Raises:
        ExecutionNotFoundError: No id begins so.
        ValidationError: Several do, or none of so many that older ones are not looked at.
    """
    if text == LAST:
        return await _newest_id()
    prefix = text.replace("-", "")
    if len(prefix) == _WHOLE:
        return UUID(prefix)
    found: dict[UUID, str] = {}
    searched = 0
    async with api() as client:
        async for run in _newest(client):
            searched += 1
            ids = await _ids(client, run)
            found |= {one: what for one, what in ids.items() if one.hex.startswith(prefix)}
    if not found and searched == SEARCHED:
        newest = f"the newest {SEARCHED} executions"
        raise ValidationError(f"none of {newest} has an id that begins with {text}; give all of it")
    if not found:
        raise ExecutionNotFoundError(text)
    if len(found) > 1:
        raise ValidationError(_ambiguous(text, found))
    return next(iter(found))


async def _newest_id() -> UUID:
    async with api() as client:
        newest = await read_list(client, limit=1, offset=0)
    if not newest:
        raise ExecutionNotFoundError(f"{LAST}, since nothing has run yet")
    return newest[0].id


async def _newest(client: "PrefectClient") -> AsyncIterator["FlowRun"]:
    for offset in range(0, SEARCHED, _PAGE):
        page = await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[*FLOW_NAMES])),
            flow_run_filter=FlowRunFilter(expected_start_time=history.due()),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=_PAGE,
            offset=offset,
        )
        for run in page:
            yield run
        if len(page) < _PAGE:
            return


async def _ids(client: "PrefectClient", run: "FlowRun") -> dict[UUID, str]:
    """Returns the ids of a run and of its commands, at each attempt, and what has them."""
    # What was stored of a plan may be gone.
    with suppress(InvalidPlanError):
        run = await with_stored_plan(client, run)
    attempts = range(1, history.newest_attempt(run) + 1)
    commands = range(len(request_ids(run)))
    return {run.id: f"{status_of(run.state).value}, {run.name}"} | {
        task_run_id(run.id, attempt, index): f"command {index} of {run.name}"
        for attempt in attempts
        for index in commands
    }


def _ambiguous(text: str, found: dict[UUID, str]) -> str:
    lines = [f"\n  {one}  {what}" for one, what in [*found.items()][:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"\n  and {len(found) - _LISTED} more")
    return f"{len(found)} ids begin with {text}{''.join(lines)}"
