"""A plan, or a run of one, as what can be drawn: commands, edges, states, times."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from cloudops_prefect.cli.names import command_names, size_of, title_of
from cloudops_prefect.graph import plan_graph
from cloudops_prefect.models import ExecutionStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import networkx as nx

    from cloudops_prefect.models import ExecutionPlan

_NOTHING = timedelta()


@dataclass(frozen=True, slots=True)
class CommandFacts:
    """Where one command of a run stands, and when it ran."""

    status: ExecutionStatus
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Where a run stands that has not ended, command by command.

    Attributes:
        commands: One for every command, in the plan's order.
        began_at: When its newest attempt began, if it goes on.
        waits_for: Why it has not begun; empty if it has.
    """

    commands: "Sequence[CommandFacts]"
    began_at: datetime | None = None
    waits_for: str = ""


@dataclass(frozen=True)
class Picture:
    """What is drawn; without `facts` it is a plan that has not run.

    Attributes:
        graph: Node i is command i, an edge a -> b lets b wait for a.
        facts: One for every command, in the plan's order.
        now: Up to when what still runs has run.
    """

    title: str
    subtitle: str
    names: "Sequence[str]"
    graph: "nx.DiGraph[int]"
    facts: "Sequence[CommandFacts] | None" = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(
        cls,
        plan: "ExecutionPlan",
        facts: "Sequence[CommandFacts] | None" = None,
        secrets: "Iterable[str]" = (),
    ) -> "Picture":
        """Makes the picture of a plan, with what is known of a run of it."""
        hidden = tuple(secrets)
        names = command_names(plan, hidden)
        return cls(title_of(plan, hidden), size_of(plan), names, plan_graph(plan), facts)

    def status(self, index: int) -> str:
        """The status of a command; empty if there is no run."""
        return "" if self.facts is None else self.facts[index].status.value

    def duration(self, index: int) -> timedelta | None:
        """How long a command ran, or has run by now; None if it has not."""
        if self.facts is None or (started := self.facts[index].started_at) is None:
            return None
        return max((self.facts[index].ended_at or self.now) - started, _NOTHING)

    @cached_property
    def order(self) -> list[int]:
        """The commands in an order in which they could run."""
        import networkx as nx

        return [*nx.lexicographical_topological_sort(self.graph)]

    @cached_property
    def layers(self) -> dict[int, int]:
        """For each command how many others have to run before it, one after the other."""
        layers: dict[int, int] = {}
        for index in self.order:
            before = self.graph.predecessors(index)
            layers[index] = max((layers[other] + 1 for other in before), default=0)
        return layers

    @cached_property
    def critical_path(self) -> list[int]:
        """The commands that wait for one another and took longest together."""
        total: dict[int, timedelta] = {}
        before: dict[int, int | None] = {}
        for index in self.order:
            if (duration := self.duration(index)) is None:
                continue
            ran = [other for other in self.graph.predecessors(index) if other in total]
            last = before[index] = max(ran, key=total.__getitem__, default=None)
            total[index] = duration + (_NOTHING if last is None else total[last])
        at = max(total, key=total.__getitem__, default=None)
        path: list[int] = []
        while at is not None:
            path.append(at)
            at = before[at]
        return path[::-1]

    @cached_property
    def span(self) -> tuple[datetime, datetime] | None:
        """From the first start to the last end; None if nothing ran."""
        ran = [one for one in self.facts or () if one.started_at is not None]
        if not ran:
            return None
        starts = [one.started_at for one in ran if one.started_at is not None]
        return min(starts), max(one.ended_at or self.now for one in ran)

    def document(self) -> dict[str, object]:
        """The picture for programs."""
        return {
            "title": self.title,
            "commands": [self._command(index) for index in self.graph],
            "critical_path": self.critical_path,
        }

    def _command(self, index: int) -> dict[str, object]:
        after = sorted(self.graph.predecessors(index))
        command: dict[str, object] = {"index": index, "name": self.names[index], "after": after}
        if self.facts is not None:
            one = self.facts[index]
            times = {"started_at": one.started_at, "duration": self.duration(index)}
            command |= {"status": one.status, **times}
        return command
