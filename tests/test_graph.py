import random
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scaling import LINEAR, cpu_seconds

from cloudops_prefect.config import ExecutionConfig
from cloudops_prefect.errors import InvalidPlanError
from cloudops_prefect.graph import check_graph, graph_errors, plan_graph
from cloudops_prefect.models import (
    DependencyGraphStrategy,
    ExecutionPlan,
    ExecutionRequest,
    ParallelStrategy,
    SerialStrategy,
    ShellCommand,
)


def plan(names, strategy):
    commands = [ExecutionRequest(name=name, command=ShellCommand(command="true")) for name in names]
    return ExecutionPlan(commands=commands, strategy=strategy)


def waiting(names, dependencies):
    return plan(names, DependencyGraphStrategy(dependencies=dependencies))


def refusal_of(refused):
    with pytest.raises(InvalidPlanError) as refusal:
        plan_graph(refused)
    return str(refusal.value).removeprefix("Invalid execution plan: ")


def test_serial_is_a_chain():
    graph = plan_graph(plan("abc", SerialStrategy()))
    assert list(graph.edges) == [(0, 1), (1, 2)]
    assert graph.graph == {"stop_on_failure": True, "max_concurrency": None}


def test_serial_without_stopping_is_a_chain_that_goes_on():
    graph = plan_graph(plan("abc", SerialStrategy(stop_on_error=False)))
    assert list(graph.edges) == [(0, 1), (1, 2)]
    assert graph.graph["stop_on_failure"] is False


def test_parallel_has_no_edges_and_a_bound():
    graph = plan_graph(plan("abc", ParallelStrategy(max_concurrency=2)))
    assert (list(graph.nodes), list(graph.edges)) == ([0, 1, 2], [])
    assert graph.graph == {"stop_on_failure": False, "max_concurrency": 2}


def test_a_dependency_graph_has_an_edge_from_what_is_waited_for():
    graph = plan_graph(waiting("abcd", {3: [1, 2], 1: [0], 2: [0]}))
    assert set(graph.edges) == {(0, 1), (0, 2), (1, 3), (2, 3)}
    assert graph.graph == {"stop_on_failure": True, "max_concurrency": None}


def test_nodes_are_all_commands_in_order_with_their_requests():
    wanted = waiting("abc", {0: [2]})
    graph = plan_graph(wanted)
    assert list(graph.nodes) == [0, 1, 2]
    assert [graph.nodes[index]["request"] for index in graph] == wanted.commands


def test_two_equal_commands_are_two_nodes():
    request = ExecutionRequest(command=ShellCommand(command="true"))
    assert len(plan_graph(ExecutionPlan(commands=[request, request]))) == 2


def test_an_index_given_twice_is_one_edge():
    assert list(plan_graph(waiting("ab", {1: [0, 0, 0]})).edges) == [(0, 1)]


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (plan("", SerialStrategy()), "a plan needs at least one command, this one has none"),
        (waiting("", {0: [1]}), "a plan needs at least one command, this one has none"),
        (
            plan("a", ParallelStrategy(max_concurrency=0)),
            "max_concurrency must be at least 1, not 0",
        ),
        (
            plan("a", ParallelStrategy(max_concurrency=-2)),
            "max_concurrency must be at least 1, not -2",
        ),
        (
            waiting(["x", "y"], {2: []}),
            "dependencies names command 2, but there are only commands 0 to 1",
        ),
        (
            waiting(["x", "y"], {-1: [0]}),
            "dependencies names command -1, but there are only commands 0 to 1",
        ),
        (
            waiting(["x", "y"], {1: [7]}),
            "command 1 (y) waits for command 7, but there are only commands 0 to 1",
        ),
        (
            waiting(["x"], {0: [-1]}),
            "command 0 (x) waits for command -1, but there is only command 0",
        ),
        (waiting(["x", "y"], {1: [1]}), "command 1 (y) waits for itself"),
        (
            waiting(["build", "docs", "test"], {0: [2], 2: [0]}),
            "commands wait for each other in a cycle: 0 (build) -> 2 (test) -> 0 (build)",
        ),
        (
            waiting("abcd", {1: [2], 2: [3], 3: [1], 0: [1]}),
            "commands wait for each other in a cycle: 1 (b) -> 3 (d) -> 2 (c) -> 1 (b)",
        ),
    ],
)
def test_a_bad_plan_is_refused_with_what_is_wrong(refused, message):
    assert refusal_of(refused) == message


def test_a_long_cycle_is_told_in_part():
    message = refusal_of(waiting(["x"] * 100, {i: [(i - 1) % 100] for i in range(100)}))
    assert message.endswith("-> 19 (x) -> … 80 more … -> 0 (x)")


def test_all_errors_can_be_listed_with_their_fields():
    refused = waiting("abc", {0: [0], 1: [9], 7: []})
    assert [error.field for error in graph_errors(refused)] == [
        "strategy.dependencies[0]",
        "strategy.dependencies[1]",
        "strategy.dependencies[7]",
    ]


def test_each_knot_of_cycles_is_told_beside_what_else_is_wrong():
    refused = waiting("abcdefg", {0: [1], 1: [0], 2: [9], 3: [3, 4], 4: [5], 5: [4, 6], 6: []})
    assert [(error.field, error.detail.partition(": ")[2]) for error in graph_errors(refused)] == [
        ("strategy.dependencies[2]", ""),
        ("strategy.dependencies[3]", ""),
        ("strategy.dependencies[0]", "0 (a) -> 1 (b) -> 0 (a)"),
        ("strategy.dependencies[4]", "4 (e) -> 5 (f) -> 4 (e)"),
    ]


edges = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda e: e[0] != e[1]))


@given(edges)
def test_a_plan_is_refused_exactly_if_its_graph_has_a_cycle(pairs):
    dependencies = {}
    for before, after in pairs:
        dependencies.setdefault(after, []).append(before)
    candidate = waiting("abcdefgh", dependencies)
    errors = list(graph_errors(candidate))
    assert (errors == []) == nx.is_directed_acyclic_graph(nx.DiGraph(pairs))
    if not errors:
        assert set(plan_graph(candidate).edges) == set(pairs)


@given(edges)
def test_a_cycle_of_each_knot_is_named(pairs):
    dependencies = {}
    for before, after in pairs:
        dependencies.setdefault(after, []).append(before)
    told = list(graph_errors(waiting("abcdefgh", dependencies)))
    knots = [knot for knot in nx.strongly_connected_components(nx.DiGraph(pairs)) if len(knot) > 1]
    assert len(told) == len(knots)
    for error in told:
        steps = error.detail.partition("cycle: ")[2].split(" -> ")
        cycle = [int(step.split()[0]) for step in steps]
        assert cycle[0] == cycle[-1]
        assert set(pairwise(cycle)) <= set(pairs)


def test_what_a_plan_costs_to_check_and_build_grows_as_its_commands_do():
    def spent_on(count: int) -> float:
        choose = random.Random(1)
        dependencies = {i: [choose.randrange(i) for _ in range(3)] for i in range(1, count)}
        big = waiting(["x"] * count, dependencies)

        def check_and_build() -> None:
            check_graph(big)
            big.validate(ExecutionConfig())
            assert plan_graph(big).number_of_nodes() == count

        return cpu_seconds(check_and_build)

    assert spent_on(5_000) < LINEAR * spent_on(500)


def test_a_command_that_would_be_cut_short_is_told_by_its_index_only():
    secret = "s3cret" * 10
    long = ExecutionRequest(
        command=ShellCommand(command=f"curl -H 'Authorization: {secret}'; true")
    )
    spaced = ExecutionRequest(command=ShellCommand(command="echo two  spaces"))
    strategy = DependencyGraphStrategy(dependencies={0: [1], 1: [0]})
    refusal = refusal_of(ExecutionPlan(commands=[long, spaced], strategy=strategy))
    assert refusal == "commands wait for each other in a cycle: 0 -> 1 -> 0"
