"""A plan's strategy as a validated graph."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from cloudops_prefect.errors import InvalidPlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import networkx as nx

    from cloudops_prefect.models import ExecutionPlan, ExecutionRequest

_SHOWN_OF_CYCLE = 20


@dataclass(frozen=True, slots=True)
class Wiring:
    """Which command waits for which, as running them takes it: networkx is slow to import.

    Attributes:
        requests: The commands.
        predecessors: What each of them waits for, by index.
        successors: What waits for each of them.
        stop_on_failure: Whether what waits for a failed command is left out.
        max_concurrency: How many may run at once; None: no bound.
    """

    requests: Sequence[ExecutionRequest]
    predecessors: Sequence[Sequence[int]]
    successors: Sequence[Sequence[int]]
    stop_on_failure: bool = False
    max_concurrency: int | None = None

    @classmethod
    def of_plan(cls, plan: ExecutionPlan) -> Wiring:
        """Return the wiring of a plan, checked.

        Raises:
            InvalidPlanError: As `check_graph`.
        """
        check_graph(plan)
        predecessors: list[list[int]] = [[] for _ in plan.commands]
        successors: list[list[int]] = [[] for _ in plan.commands]
        for before, after in _edges(plan):
            predecessors[after].append(before)
            successors[before].append(after)
        strategy = plan.strategy
        return cls(
            plan.commands,
            predecessors,
            successors,
            stop_on_failure=strategy.type == "dependency_graph"
            or (strategy.type == "serial" and strategy.stop_on_error),
            max_concurrency=strategy.max_concurrency if strategy.type == "parallel" else None,
        )

    @classmethod
    def of_request(cls, request: ExecutionRequest) -> Wiring:
        """Return the wiring of a request that is no plan's."""
        return cls([request], [[]], [[]])


def plan_graph(plan: ExecutionPlan) -> nx.DiGraph[int]:
    """Return the plan as a graph, checked: node i is command i, an edge a -> b lets b wait for a.

    Node i has the attribute `request`. The graph has the attributes `stop_on_failure` and
    `max_concurrency`, as `Wiring` has them.

    Raises:
        InvalidPlanError: As `check_graph`.
    """
    import networkx as nx

    wiring = Wiring.of_plan(plan)
    graph: nx.DiGraph[int] = nx.DiGraph(
        stop_on_failure=wiring.stop_on_failure, max_concurrency=wiring.max_concurrency
    )
    graph.add_nodes_from((i, {"request": request}) for i, request in enumerate(plan.commands))
    graph.add_edges_from(_edges(plan))
    return graph


def check_graph(plan: ExecutionPlan) -> None:
    """Refuse a plan whose commands can't be put into an order.

    Raises:
        InvalidPlanError: There are no commands, an index doesn't exist, a command waits for itself,
            there is a cycle, or `max_concurrency` is below 1.
    """
    for error in graph_errors(plan):
        raise error


def graph_errors(plan: ExecutionPlan) -> Iterator[InvalidPlanError]:
    """Yield everything for which `check_graph` would refuse the plan."""
    strategy = plan.strategy
    if not plan.commands:
        yield InvalidPlanError("a plan needs at least one command, this one has none", "commands")
    if strategy.type == "parallel":
        yield from _concurrency_errors(strategy.max_concurrency)
    elif strategy.type == "dependency_graph" and plan.commands:
        yield from _index_errors(plan, strategy.dependencies)
        yield from _cycle_errors(plan)


def _edges(plan: ExecutionPlan) -> Iterator[tuple[int, int]]:
    strategy = plan.strategy
    if strategy.type == "serial":
        yield from pairwise(range(len(plan.commands)))
    elif strategy.type == "dependency_graph":
        for index, waits_for in strategy.dependencies.items():
            yield from ((other, index) for other in dict.fromkeys(waits_for))


def _concurrency_errors(max_concurrency: int | None) -> Iterator[InvalidPlanError]:
    if max_concurrency is not None and max_concurrency < 1:
        yield InvalidPlanError(
            f"max_concurrency must be at least 1, not {max_concurrency}", "strategy.max_concurrency"
        )


def _index_errors(
    plan: ExecutionPlan, dependencies: dict[int, list[int]]
) -> Iterator[InvalidPlanError]:
    count = len(plan.commands)
    for index, waits_for in dependencies.items():
        if not 0 <= index < count:
            yield _dependency_error(
                index, f"dependencies names command {index}, but {_existing(count)}"
            )
            continue
        for other in dict.fromkeys(waits_for):
            if not 0 <= other < count:
                waits = f"command {_label(plan, index)} waits for command {other}"
                yield _dependency_error(index, f"{waits}, but {_existing(count)}")
            elif other == index:
                yield _dependency_error(index, f"command {_label(plan, index)} waits for itself")


def _cycle_errors(plan: ExecutionPlan) -> Iterator[InvalidPlanError]:
    indices = range(len(plan.commands))
    edges = [
        (before, after)
        for before, after in _edges(plan)
        if before != after and before in indices and after in indices
    ]
    # Where all edges go up there is no cycle, and 0.15 s for the import are saved.
    if all(before < after for before, after in edges):
        return
    import networkx as nx

    graph: nx.DiGraph[int] = nx.DiGraph(edges)
    knots = [knot for knot in nx.strongly_connected_components(graph) if len(knot) > 1]
    for knot in sorted(knots, key=min):
        found = cast("list[tuple[int, int]]", nx.find_cycle(graph.subgraph(knot)))  # pyright: ignore[reportUnknownMemberType]
        cycle = [before for before, _ in found]
        yield _dependency_error(
            min(cycle), f"commands wait for each other in a cycle: {_cycle_text(plan, cycle)}"
        )


def _dependency_error(index: int, detail: str) -> InvalidPlanError:
    return InvalidPlanError(detail, f"strategy.dependencies[{index}]")


def _cycle_text(plan: ExecutionPlan, cycle: list[int]) -> str:
    first = cycle.index(min(cycle))
    ordered = [*cycle[first:], *cycle[:first]]
    labels = [_label(plan, index) for index in ordered[:_SHOWN_OF_CYCLE]]
    if len(ordered) > _SHOWN_OF_CYCLE:
        labels.append(f"… {len(ordered) - _SHOWN_OF_CYCLE} more …")
    return " -> ".join([*labels, labels[0]])


def _label(plan: ExecutionPlan, index: int) -> str:
    # Cut short or rewritten it may have a part of a secret, which nobody finds in the message then.
    request = plan.commands[index]
    whole = request.display_name == request.display_text
    return f"{index} ({request.display_name})" if whole else str(index)


def _existing(count: int) -> str:
    return "there is only command 0" if count == 1 else f"there are only commands 0 to {count - 1}"
