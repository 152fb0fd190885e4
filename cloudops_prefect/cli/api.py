"""What the command line asks the Prefect API itself, beside what the engine asks."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import FlowRunSort

from cloudops_prefect.api_errors import api_complaint
from cloudops_prefect.errors import ExecutionIOError, ExecutionNotFoundError, ValidationError
from cloudops_prefect.naming import FLOW_NAMES
from cloudops_prefect.parameters import request_ids
from cloudops_prefect.plan_run import task_run_id
from cloudops_prefect.states import status_of

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

SEARCHED = 1000
"""Among how many of the newest executions a shortened id is looked for."""
_PAGE = 200
_LISTED = 10
_WHOLE = 32


@asynccontextmanager
async def api() -> AsyncGenerator["PrefectClient"]:
    """Gives a client of the API.

    Raises:
        ExecutionIOError: if the API does not answer, or does not as it should.
    """
    try:
        async with get_client() as client:
            yield client
    except Exception as error:
        if (complaint := api_complaint(error)) is None:
            raise
        raise ExecutionIOError(complaint) from error


async def resolve(text: str) -> UUID:
    """Returns the id that is meant by its beginning; Prefect's API finds whole ids only.

    Raises:
        ExecutionNotFoundError: if none of the newest executions has an id that begins so.
        ValidationError: if several have.
    """
    prefix = text.replace("-", "")
    if len(prefix) == _WHOLE:
        return UUID(prefix)
    found: dict[UUID, str] = {}
    async with api() as client:
        for offset in range(0, SEARCHED, _PAGE):
            page = await _newest(client, offset)
            for run in page:
                found |= {one: what for one, what in _ids(run) if one.hex.startswith(prefix)}
            if len(page) < _PAGE:
                break
    if not found:
        raise ExecutionNotFoundError(text)
    if len(found) > 1:
        raise ValidationError(_ambiguous(text, found))
    return next(iter(found))


async def _newest(client: "PrefectClient", offset: int) -> list["FlowRun"]:
    return await client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[*FLOW_NAMES])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=_PAGE,
        offset=offset,
    )


def _ids(run: "FlowRun") -> Iterator[tuple[UUID, str]]:
    yield run.id, f"{status_of(run.state).value}, {run.name}"
    for index in range(len(request_ids(run))):
        execution_id = task_run_id(run.id, max(run.run_count, 1), index)
        yield execution_id, f"command {index} of {run.name}"


def _ambiguous(text: str, found: dict[UUID, str]) -> str:
    lines = [f"\n  {one}  {what}" for one, what in [*found.items()][:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"\n  and {len(found) - _LISTED} more")
    return f"{len(found)} ids begin with {text}{''.join(lines)}"
