"""The ways in which an execution can be shown while it goes on."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from cloudops_prefect.cli import printing
from cloudops_prefect.cli.api import ui_url
from cloudops_prefect.cli.event_lines import CommandLines, PlanLines
from cloudops_prefect.cli.grouped_lines import GroupedLines
from cloudops_prefect.cli.live_state import RunState
from cloudops_prefect.cli.live_view import LiveView, can_be_live
from cloudops_prefect.cli.names import title_of
from cloudops_prefect.models import ExecutionPlan
from cloudops_prefect.naming import api_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudops_prefect.cli.arguments import ShownOptions
    from cloudops_prefect.cli.picture import RunFacts
    from cloudops_prefect.models import ExecutionRequest, StreamedEvent


class View(Protocol):
    """What is shown of an execution while it goes on."""

    def show(self, event: "StreamedEvent", /) -> None:
        """Takes an event."""

    def learn(self, facts: "RunFacts", /) -> bool:
        """Takes what the API knows; returns whether more of it is of use."""
        ...

    def drawn(self) -> AbstractAsyncContextManager[None]:
        """Keeps the view on the screen for as long as the context lasts."""
        ...


class LineView:
    """A view that prints lines and leaves them.

    Args:
        show: Prints an event.
    """

    def __init__(self, show: Callable[["StreamedEvent"], None]) -> None:
        self.show = show
        self._waited = Counter[str]()

    def learn(self, facts: "RunFacts") -> bool:
        """Tells once what is waited for, where that is still so at the second look."""
        self._waited[facts.waits_for] += 1
        if facts.waits_for and self._waited[facts.waits_for] == 2:
            printing.error_line(facts.waits_for)
        return bool(facts.waits_for)

    @asynccontextmanager
    async def drawn(self) -> AsyncGenerator[None]:
        """Takes the last unfinished line off the screen at the end; what is printed stays."""
        try:
            yield
        finally:
            printing.bottom_row(None)


def view_of(
    item: "ExecutionPlan | ExecutionRequest", names: "Sequence[str]", options: "ShownOptions"
) -> View:
    """Returns the view that was asked for, or the one that fits where it is printed.

    Args:
        item: What is executed.
        names: What the commands of a plan are called.
        options: What was asked for.
    """
    if options.json or options.quiet:
        return LineView(_nothing)
    if not isinstance(item, ExecutionPlan):
        return LineView(CommandLines().show)
    if options.output in {None, "live"} and can_be_live():
        return LiveView(title_of(item, api_credentials()), RunState(item, names), ui_url)
    lines = GroupedLines if options.output == "grouped" else PlanLines
    return LineView(lines(item, names).show)


def _nothing(event: "StreamedEvent") -> None:
    """Shows nothing, for those who want the result only."""
