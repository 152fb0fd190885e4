"""The ways in which a plan's run can be shown while it goes on."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from cloudops_prefect.cli.event_lines import PlanLines
from cloudops_prefect.cli.grouped_lines import GroupedLines
from cloudops_prefect.cli.live_state import RunState
from cloudops_prefect.cli.live_view import LiveView, can_be_live
from cloudops_prefect.cli.names import title_of
from cloudops_prefect.naming import api_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudops_prefect.cli.arguments import ShownOptions
    from cloudops_prefect.models import ExecutionEvent, ExecutionPlan


class View(Protocol):
    """What is shown of a run while it goes on."""

    def show(self, event: "ExecutionEvent", /) -> None:
        """Takes an event."""

    def drawn(self) -> AbstractAsyncContextManager[None]:
        """Keeps the view on the screen for as long as the context lasts."""
        ...


@dataclass(frozen=True, slots=True)
class LineView:
    """A view that prints lines and leaves them."""

    show: Callable[["ExecutionEvent"], None]

    def drawn(self) -> AbstractAsyncContextManager[None]:
        """Does nothing: what is printed stays."""
        return nullcontext()


def view_of(
    plan: "ExecutionPlan",
    names: "Sequence[str]",
    options: "ShownOptions",
    address: Callable[[UUID], str],
) -> View:
    """Returns the view that was asked for, or the one that fits where it is printed."""
    if options.json or options.quiet:
        return LineView(nothing)
    if options.output in {None, "live"} and can_be_live():
        return LiveView(title_of(plan, api_credentials()), RunState(plan, names), address)
    by_request = {request.id: name for request, name in zip(plan.commands, names, strict=True)}
    lines = GroupedLines if options.output == "grouped" else PlanLines
    return LineView(lines(by_request).show)


def nothing(event: "ExecutionEvent") -> None:
    """Shows nothing, for those who want the result only."""
