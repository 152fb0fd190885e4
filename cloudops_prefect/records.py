"""What the Prefect API keeps of a command's end: its result, so that any machine can read it.

Prefect's own result storage is a directory of the machine that ran the flow unless every user sets
up a storage block. Results go to the API instead, as artifacts of a type that the UI leaves out.
"""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
)
from prefect.client.schemas.sorting import ArtifactSort
from pydantic import BaseModel, ConfigDict, TypeAdapter

from cloudops_prefect.errors import SerializationError
from cloudops_prefect.models import ExecutionResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Artifact

ARTIFACT_TYPE = "result"
ENCODING = "cloudops/1+zlib+base64"
ARTIFACT_PAGE_SIZE = 200


class ResultRecord(BaseModel):
    """The result of one command of a run, and in which attempt at the run it came about."""

    model_config = ConfigDict(frozen=True)

    flow_run_id: UUID
    index: int
    attempt: int
    result: ExecutionResult


_records = TypeAdapter(list[ResultRecord])


def to_artifact(flow_run_id: UUID, records: Iterable[ResultRecord]) -> ArtifactCreate:
    """Packs results of a run into an artifact; PostgreSQL's JSON can't hold raw text's NULs."""
    # A reader of an older version refuses fields that it doesn't know, also empty ones.
    packed = zlib.compress(_records.dump_json(list(records), exclude_defaults=True), level=1)
    data = {"encoding": ENCODING, "records": base64.b64encode(packed).decode("ascii")}
    return ArtifactCreate(type=ARTIFACT_TYPE, data=data, flow_run_id=flow_run_id)  # pyright: ignore[reportCallIssue]


def from_artifact(artifact: Artifact) -> list[ResultRecord]:
    """Unpacks the results that an artifact holds; none if it isn't one of ours.

    Raises:
        SerializationError: if it is one of ours and can't be read.
    """
    data: Any = artifact.data
    if not isinstance(data, dict) or data.get("encoding") != ENCODING:  # pyright: ignore[reportUnknownMemberType]
        return []
    try:
        return _records.validate_json(
            zlib.decompress(base64.b64decode(cast("str", data["records"])))
        )
    except (KeyError, ValueError, zlib.error) as error:
        raise SerializationError(f"artifact {artifact.id}: {error}") from error


async def read_results(client: PrefectClient, flow_run_id: UUID) -> dict[int, ExecutionResult]:
    """Reads the newest result of each command of a run, by the command's index in its plan."""
    newest = newest_records(await RecordReader(flow_run_id).read(client))
    return {index: newest[index].result for index in sorted(newest)}


def newest_records(records: Iterable[ResultRecord]) -> dict[int, ResultRecord]:
    """Returns the record of each command's newest attempt, by the command's index."""
    newest: dict[int, ResultRecord] = {}
    for record in records:
        known = newest.get(record.index)
        if known is None or known.attempt <= record.attempt:
            newest[record.index] = record
    return newest


class RecordReader:
    """Reads the records of a run as they come, each of them once."""

    def __init__(self, flow_run_id: UUID) -> None:
        self._wanted = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]),
            type=ArtifactFilterType(any_=[ARTIFACT_TYPE]),
        )
        self._seen: set[UUID] = set()

    async def read(self, client: PrefectClient) -> list[ResultRecord]:
        """Returns the records that have come since the last time."""
        records: list[ResultRecord] = []
        missing = await self._count(client) - len(self._seen) if self._seen else ARTIFACT_PAGE_SIZE
        if missing <= 0:
            return records
        # One more than is missing: a page that is not full is the last one.
        async for artifact in self._newest(client, min(missing + 1, ARTIFACT_PAGE_SIZE)):
            self._seen.add(artifact.id)
            records += from_artifact(artifact)
        return records

    async def _newest(self, client: PrefectClient, limit: int) -> AsyncIterator[Artifact]:
        """Yields what is new, the newest first; meanwhile there may come more."""
        offset = 0
        while True:
            page = await client.read_artifacts(
                artifact_filter=self._wanted,
                sort=ArtifactSort.CREATED_DESC,
                limit=limit,
                offset=offset,
            )
            unseen = [artifact for artifact in page if artifact.id not in self._seen]
            for artifact in unseen:
                yield artifact
            if len(unseen) < limit:
                return
            offset += limit

    async def _count(self, client: PrefectClient) -> int:
        # Artifacts hold megabytes: whoever looks again and again is to take only what is new.
        wanted = {"artifacts": self._wanted.model_dump(mode="json", exclude_none=True)}
        answer = await client.request("POST", "/artifacts/count", json=wanted)
        return answer.json()
