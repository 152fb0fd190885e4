"""What people see of the commands of a plan: their names, without secrets."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cloudops_prefect import shown
from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.models import one_line

if TYPE_CHECKING:
    from cloudops_prefect.models import ExecutionPlan


def command_names(plan: "ExecutionPlan", secrets: Iterable[str] = ()) -> list[str]:
    """What each command of a plan is called, two of the same name told apart by their number.

    Args:
        plan: Whose commands.
        secrets: Values to mask besides those of the environment.
    """
    return shown.names_of(plan, ExecutionConfig.load(), secrets)


def title_of(plan: "ExecutionPlan", secrets: Iterable[str] = ()) -> str:
    """What a plan is called."""
    return one_line(shown.description_of(plan, ExecutionConfig.load(), secrets)) or "plan"


def size_of(plan: "ExecutionPlan") -> str:
    """How many commands a plan has, and in which order they run."""
    count = len(plan.commands)
    kind = plan.strategy.type.replace("_", " ")
    return f"{count} command{'' if count == 1 else 's'}, {kind}"
