"""What may be seen of requests and plans: their texts without the secrets in them."""

from __future__ import annotations

import os
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

from cloudops_prefect.env_secrets import secret_values
from cloudops_prefect.models import one_line
from cloudops_prefect.redaction import shared_redactor
from cloudops_prefect.unicode_text import valid_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloudops_prefect.config import ExecutionConfig
    from cloudops_prefect.models import ExecutionPlan, ExecutionRequest
    from cloudops_prefect.redaction import Redactor


def redactor_for(
    config: ExecutionConfig,
    requests: Iterable[ExecutionRequest],
    secrets: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
) -> Redactor:
    """Returns what replaces secrets wherever something of requests is shown.

    Args:
        config: Its `redact_env` tells which variables are secret, of the requests and this process.
        requests: Whose environments count.
        secrets: Values that are secret whatever they are called.
        env: Variables from elsewhere, which count too.
    """
    envs = (os.environ, env or {}, *(request.env for request in requests))
    named = (secret_values(one, config.redact_env) for one in envs)
    return shared_redactor(frozenset(chain(secrets, *named)))


def name_of(request: ExecutionRequest, config: ExecutionConfig, secrets: Iterable[str] = ()) -> str:
    """Returns a request's display name; it is cut when nothing secret is left in it."""
    return one_line(redactor_for(config, [request], secrets).text(request.display_text))


def names_of(
    plan: ExecutionPlan, config: ExecutionConfig, secrets: Iterable[str] = ()
) -> list[str]:
    """Return the display names of a plan's commands, two of the same name with their index."""
    hidden = tuple(secrets)
    return numbered([name_of(request, config, hidden) for request in plan.commands])


def numbered(names: Sequence[str]) -> list[str]:
    """Add its index to each name that is there more than once."""
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} #{index}" for index, name in enumerate(names)]


def description_of(
    plan: ExecutionPlan, config: ExecutionConfig, secrets: Iterable[str] = ()
) -> str:
    """Returns a plan's description."""
    return valid_text(redactor_for(config, plan.commands, secrets).text(plan.description))
