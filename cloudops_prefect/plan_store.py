"""Plans that are too large for a run's parameters: the API keeps them as artifacts.

The parameters then hold the plan without its commands, and under a tag of its metadata the name of
what is stored, which is made of its content: runs and deployments of one plan share it. Where the
flow of a deployment has no parameter for the plan, each run has that name as a label.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.settings import get_current_settings
from pydantic_core import from_json, to_json

from cloudops_prefect.errors import InvalidPlanError, ValidationError
from cloudops_prefect.models import DependencyGraphStrategy, ExecutionPlan, ExecutionRequest
from cloudops_prefect.parameters import STORED, parameters_of, stored_name

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Artifact, FlowRun

LARGEST_INLINE = 256 * 1024
"""Bytes of a plan that parameters hold: half of what the API takes."""
PART = 1024 * 1024
PART_PAGE_SIZE = 50
SHOWN = 1000
# Of this type the UI shows none.
ARTIFACT_TYPE = "result"
_KEPT = 8

_loaded: OrderedDict[str, ExecutionPlan] = OrderedDict()


async def stored_parameters(
    client: PrefectClient, item: ExecutionPlan | ExecutionRequest
) -> dict[str, Any]:
    """Returns the parameters of a run; a large plan is stored at the API first.

    Raises:
        ValidationError: if a single request is larger than the API takes.
    """
    parameters = parameters_of(item)
    if isinstance(item, ExecutionPlan):
        if not is_large(parameters):
            return parameters
        return _without_commands(item, await _store(client, item))
    size, limit = _size(parameters), get_current_settings().server.api.max_parameter_size
    if size > limit:
        raise ValidationError(f"a request of {size:,} bytes: the API takes {limit:,}")
    return parameters


def is_large(value: Any) -> bool:
    """Whether a plan, or what is to become one, is to be stored and not sent as a parameter."""
    return _size(value) > LARGEST_INLINE


def _size(value: Any) -> int:
    written = to_json(value, serialize_unknown=True)
    if written.isascii():
        return len(written)
    # As the API counts: what is not ASCII has six bytes, or twelve.
    return len(json.dumps(from_json(written), separators=(",", ":")))


async def store_for_run(client: PrefectClient, flow_run_id: UUID, plan: ExecutionPlan) -> None:
    """Stores the plan of a run that can have no parameters; a label of the run names it."""
    await client.update_flow_run_labels(flow_run_id, {STORED: await _store(client, plan)})


async def with_stored_plan(client: PrefectClient, flow_run: FlowRun) -> FlowRun:
    """Returns the run with its whole plan as the parameter.

    Raises:
        InvalidPlanError: if what was stored is not there any more.
    """
    if (name := stored_name(flow_run)) is None:
        return flow_run
    plan = _loaded.get(name) or await _load(client, name)
    _remember(name, plan)
    return flow_run.model_copy(update={"parameters": {"plan": plan}})


async def _store(client: PrefectClient, plan: ExecutionPlan) -> str:
    packed = base64.b64encode(zlib.compress(to_json(parameters_of(plan)["plan"])))
    name = f"cloudops-plan-{hashlib.sha256(packed).hexdigest()[:32]}"
    parts = [packed[start : start + PART] for start in range(0, len(packed), PART)]
    if len(await _read_parts(client, name)) < len(parts):
        for number, part in enumerate(parts):
            data = {"part": number, "of": len(parts), "plan": part.decode("ascii")}
            await client.create_artifact(ArtifactCreate(key=name, type=ARTIFACT_TYPE, data=data))
    _remember(name, plan)
    return name


def _without_commands(plan: ExecutionPlan, name: str) -> dict[str, Any]:
    is_graph = isinstance(plan.strategy, DependencyGraphStrategy)
    tags = {**plan.metadata.tags, STORED: name}
    bare = plan.model_copy(
        update={
            "description": plan.description[:SHOWN],
            "strategy": DependencyGraphStrategy() if is_graph else plan.strategy,
            "metadata": plan.metadata.model_copy(update={"tags": tags}),
            "commands": [],
        }
    )
    parameters = parameters_of(bare)
    parameters["plan"]["commands"] = []
    return parameters


async def _load(client: PrefectClient, name: str) -> ExecutionPlan:
    parts = await _read_parts(client, name)
    total = next(iter(parts.values()))["of"] if parts else 0
    if not parts or len(parts) < total:
        raise InvalidPlanError(f"the stored plan {name} is not at the API any more")
    packed = "".join(parts[number]["plan"] for number in range(total))
    return ExecutionPlan.model_validate(from_json(zlib.decompress(base64.b64decode(packed))))


async def _read_parts(client: PrefectClient, name: str) -> dict[int, dict[str, Any]]:
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[name]))
    parts: dict[int, dict[str, Any]] = {}
    offset = 0
    while True:
        page: list[Artifact] = await client.read_artifacts(
            artifact_filter=wanted, sort=ArtifactSort.ID_DESC, limit=PART_PAGE_SIZE, offset=offset
        )
        for artifact in page:
            data: Any = artifact.data
            parts[data["part"]] = data
        if len(page) < PART_PAGE_SIZE:
            return parts
        offset += PART_PAGE_SIZE


def _remember(name: str, plan: ExecutionPlan) -> None:
    _loaded[name] = plan
    _loaded.move_to_end(name)
    while len(_loaded) > _KEPT:
        _loaded.popitem(last=False)
