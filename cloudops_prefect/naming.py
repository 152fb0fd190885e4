"""What the runs of commands and plans are called in Prefect, and by which tags they are found.

Names go to the API and into its UI: secrets that this process knows are replaced in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.settings import get_current_settings

from cloudops_prefect import shown
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.unicode_text import valid_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from cloudops_prefect.models import ExecutionMetadata, ExecutionRequest, ExecutionResult

RUN_COMMAND = "run-command"
RUN_PLAN = "run-plan"
FLOW_NAMES = (RUN_COMMAND, RUN_PLAN)
LOCAL = "local"
"""The deployment of each flow that has the runs of engines in their own process."""


def api_credentials() -> tuple[str, ...]:
    """Returns what this process shows to the Prefect API and nobody else may see."""
    api = get_current_settings().api
    return tuple(one.get_secret_value() for one in (api.key, api.auth_string) if one is not None)


def shown_name(request: ExecutionRequest, config: ExecutionConfig | None = None) -> str:
    """Returns a request's display name without the secrets that this process knows.

    They are those of its own and the request's environment and its credentials for the API; not
    those of blocks, which are read where the command runs.
    """
    return shown.name_of(request, config or ExecutionConfig(), api_credentials())


def with_name(
    result: ExecutionResult, request: ExecutionRequest, config: ExecutionConfig | None = None
) -> ExecutionResult:
    """Return a command's result with the command's name, which only what has run has yet."""
    if result.name is not None:
        return result
    return result.model_copy(update={"name": shown_name(request, config)})


def plan_run_name(plan: ExecutionPlan, config: ExecutionConfig | None = None) -> str:
    """Names a plan's run: its description, else what its commands are."""
    config = config or ExecutionConfig()
    first = shown_name(plan.commands[0], config) if plan.commands else ""
    others = f" and {len(plan.commands) - 1} more" if len(plan.commands) > 1 else ""
    return " ".join(shown_description(plan, config).split()) or f"{first}{others}"


def run_name(item: ExecutionPlan | ExecutionRequest, config: ExecutionConfig | None = None) -> str:
    """Names the run of a plan or of a single request."""
    if isinstance(item, ExecutionPlan):
        return plan_run_name(item, config)
    return shown_name(item, config)


def shown_description(plan: ExecutionPlan, config: ExecutionConfig | None = None) -> str:
    """Returns a plan's description as `shown_name` returns a request's name."""
    return shown.description_of(plan, config or ExecutionConfig(), api_credentials())


def shown_text(
    text: str, requests: Iterable[ExecutionRequest], config: ExecutionConfig | None = None
) -> str:
    """Returns what is said about requests as `shown_name` returns a request's name."""
    redactor = shown.redactor_for(config or ExecutionConfig(), requests, api_credentials())
    return valid_text(redactor.text(text))


def id_tag(own_id: UUID) -> str:
    """Returns the tag by which the runs of a request or plan are found."""
    return f"cloudops-id:{own_id}"


def tags_of(own_id: UUID, metadata: ExecutionMetadata) -> list[str]:
    """Returns the tags of a run: its metadata, and the id of the request or plan."""
    return [*metadata_tags(metadata), id_tag(own_id)]


def metadata_tags(metadata: ExecutionMetadata) -> list[str]:
    """Returns the tags that say where a request or plan comes from."""
    tags = [f"{key}:{value}" if value else key for key, value in metadata.tags.items()]
    if metadata.source:
        tags.append(f"source:{metadata.source}")
    if metadata.conversation_id:
        tags.append(f"conversation:{metadata.conversation_id}")
    return tags
