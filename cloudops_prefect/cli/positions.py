"""Which command of a plan an event tells of."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from cloudops_prefect.models import ExecutionPlan


class Positions:
    """The positions of a plan's commands, found by the ids that events have.

    A plan may have one request twice: these are two executions, and the one that is heard of first
    is taken for the first.
    """

    def __init__(self, plan: "ExecutionPlan") -> None:
        self._known: dict[UUID, int] = {}
        self._left: dict[UUID, list[int]] = {}
        for index, request in enumerate(plan.commands):
            self._left.setdefault(request.id, []).append(index)

    def of(self, execution_id: "UUID", request_id: "UUID") -> int | None:
        """Returns the position of a command; None if the plan has no such request."""
        left = self._left.get(request_id)
        if left and execution_id not in self._known:
            self._known[execution_id] = left.pop(0) if len(left) > 1 else left[0]
        return self._known.get(execution_id)
