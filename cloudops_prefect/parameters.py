"""What the deployed flows are given: written for a run, and read back from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid5

from pydantic import ValidationError as WrongTypesError

from cloudops_prefect.models import ExecutionPlan, ExecutionRequest

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


STORED = "cloudops-stored-plan"
"""The tag of a plan's metadata, or the label of a run, that names what is stored of the plan."""


def parameters_of(item: ExecutionPlan | ExecutionRequest) -> dict[str, Any]:
    """Returns the parameters of a run, without the fields that are empty anyway."""
    name = "plan" if isinstance(item, ExecutionPlan) else "request"
    return {name: _without_noise(item.model_dump(mode="json"))}


def has_plan(flow_run: FlowRun) -> bool:
    """Whether a run is a plan's."""
    return "plan" in flow_run.parameters or STORED in flow_run.labels


def stored_name(flow_run: FlowRun) -> str | None:
    """Returns the name under which the API keeps the plan of a run; None if it is in the run."""
    if STORED in flow_run.labels and "plan" not in flow_run.parameters:
        return str(flow_run.labels[STORED])
    plan: Any = flow_run.parameters.get("plan")
    try:
        return None if isinstance(plan, ExecutionPlan) else plan["metadata"]["tags"].get(STORED)
    except (TypeError, AttributeError, LookupError):
        return None


def plan_of(flow_run: FlowRun) -> ExecutionPlan | None:
    """Returns the plan of a run; None if it has none, or one that can't be read.

    What a form or a schedule leaves without an id gets one that depends on the run only, so that
    whoever reads the run, at whatever attempt, sees the same.
    """
    plan = flow_run.parameters.get("plan")
    try:
        if plan is None or isinstance(plan, ExecutionPlan):
            return plan
        commands = [
            {**command, "id": request_id}
            for command, request_id in zip(plan["commands"], request_ids(flow_run), strict=True)
        ]
        return ExecutionPlan.model_validate({"id": flow_run.id, **plan, "commands": commands})
    except (WrongTypesError, TypeError, AttributeError, LookupError):
        return None


def request_of(flow_run: FlowRun) -> ExecutionRequest | None:
    """Returns the request of a single command's run, as `plan_of` does a plan."""
    request = flow_run.parameters.get("request")
    try:
        if request is None or isinstance(request, ExecutionRequest):
            return request
        return ExecutionRequest.model_validate({"id": flow_run.id, **request})
    except (WrongTypesError, TypeError):
        return None


def request_ids(flow_run: FlowRun) -> list[str]:
    """Returns the ids of the requests of a plan's run, in the plan's order."""
    plan: ExecutionPlan | dict[str, Any] = flow_run.parameters.get("plan", {})
    if isinstance(plan, ExecutionPlan):
        return [str(command.id) for command in plan.commands]
    commands: list[dict[str, Any]] = plan.get("commands", [])
    return [
        command.get("id") or str(_stand_in(flow_run.id, index))
        for index, command in enumerate(commands)
    ]


def _stand_in(flow_run_id: UUID, index: int) -> UUID:
    return uuid5(flow_run_id, f"request/{index}")


def _without_noise(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_noise(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    bare = {key: _without_noise(item) for key, item in cast("dict[str, Any]", value).items()}
    return {key: item for key, item in bare.items() if not _is_noise(key, item)}


def _is_noise(key: str, item: Any) -> bool:
    # A worker of an older version refuses fields that it doesn't know.
    field = ExecutionRequest.model_fields.get(key)
    unset = item is False and field is not None and field.default is False
    return unset or item is None or item in ({}, [])
