"""Results that a run's process leaves on its machine: the API gets them later, or too late.

They are in its sign of life, so that a completed command counts as one, and does not run again,
though the process was killed before the next batch of results had arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from cloudops_prefect.crashes import api_url
from cloudops_prefect.errors import ExecutionIOError
from cloudops_prefect.liveness import leave_line, signs_of_the_dead
from cloudops_prefect.output import Position, captured_output
from cloudops_prefect.publishing import PendingResult, Publisher
from cloudops_prefect.records import RecordReader, ResultRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.liveness import Sign
    from cloudops_prefect.models import ExecutionResult


class _Left(BaseModel):
    """A result without its output, and where in the log that begins, if there is one."""

    record: ResultRecord
    start: Position | None


def leave_result(record: ResultRecord, start: Position | None) -> None:
    """Leaves a result for the case that the process dies.

    Args:
        record: The result without its output.
        start: Where in its log the command's output begins; None if it has none.
    """
    left = _Left(record=record, start=start)
    leave_line(record.flow_run_id, left.model_dump_json())


async def tell_left_results_of(
    client: PrefectClient, config: ExecutionConfig, flow_run_id: UUID
) -> None:
    """Sends what dead processes of this machine have left of a run."""
    for sign in signs_of_the_dead(config.resolved_log_dir, api_url(), flow_run_id):
        await tell_left_results(client, config, sign)


async def tell_left_results(client: PrefectClient, config: ExecutionConfig, sign: Sign) -> None:
    """Sends what a dead process has left and the API does not have, with the output in the log."""
    if not (left := [*_left_in(sign)]):
        return
    records = await RecordReader(sign.flow_run_id).read(client)
    known = {(record.index, record.attempt) for record in records}
    untold = [
        _pending(one, config) for one in left if (one.record.index, one.record.attempt) not in known
    ]
    await Publisher(client).send_results(untold, len(untold))


def _left_in(sign: Sign) -> Iterator[_Left]:
    for line in sign.lines:
        try:
            yield _Left.model_validate_json(line)
        except ValidationError:
            # It died while it wrote.
            continue


def _pending(left: _Left, config: ExecutionConfig) -> PendingResult:
    record = left.record

    def load() -> ExecutionResult:
        return _with_output(record.result, left.start, config)

    return PendingResult(record, load)


def _with_output(
    result: ExecutionResult, start: Position | None, config: ExecutionConfig
) -> ExecutionResult:
    if start is None:
        return result
    # A path that was read from JSON need not be the true one.
    path = config.log_path(result.execution_id)
    try:
        stdout, stderr = (
            captured_output(path, stream, config.max_output_bytes, start)
            for stream in ("stdout", "stderr")
        )
    except ExecutionIOError:
        truncated = {"stdout_truncated": True, "stderr_truncated": True}
        return result.model_copy(update=truncated)
    update = {
        "stdout": stdout[0],
        "stdout_truncated": stdout[1],
        "stderr": stderr[0],
        "stderr_truncated": stderr[1],
    }
    return result.model_copy(update=update)
