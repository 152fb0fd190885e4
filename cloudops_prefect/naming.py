"""What the runs of commands and plans are called in Prefect, and by which tags they are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from cloudops_prefect.models import ExecutionMetadata, ExecutionPlan

RUN_COMMAND = "run-command"
RUN_PLAN = "run-plan"
FLOW_NAMES = (RUN_COMMAND, RUN_PLAN)


def plan_run_name(plan: ExecutionPlan) -> str:
    """Names a plan's run: its description, else what its commands are."""
    first = plan.commands[0].display_name if plan.commands else ""
    others = f" and {len(plan.commands) - 1} more" if len(plan.commands) > 1 else ""
    return " ".join(plan.description.split()) or f"{first}{others}"


def id_tag(own_id: UUID) -> str:
    """Returns the tag by which the runs of a request or plan are found."""
    return f"cloudops-id:{own_id}"


def tags_of(own_id: UUID, metadata: ExecutionMetadata) -> list[str]:
    """Returns the tags of a run: its metadata, and the id of the request or plan."""
    tags = [f"{key}:{value}" if value else key for key, value in metadata.tags.items()]
    if metadata.source:
        tags.append(f"source:{metadata.source}")
    if metadata.conversation_id:
        tags.append(f"conversation:{metadata.conversation_id}")
    return [*tags, id_tag(own_id)]
