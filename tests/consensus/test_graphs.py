from collections.abc import Iterable

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stalegrid.consensus import graphs
from stalegrid.errors import ConfigError

NAMED = graphs.NAMES


def edges_of(graph: graphs.Graph) -> set[tuple[int, int]]:
    return {(min(edge), max(edge)) for edge in graph.edges}


@given(name=st.sampled_from(NAMED), groups=st.integers(1, 40))
def test_named_topologies_are_connected_simple_graphs_over_the_groups(name: str, groups: int) -> None:
    if name == "torus" and groups > 2 and all(groups % d for d in range(2, groups)):
        return
    graph = graphs.build(name, groups)
    assert list(graph) == list(range(groups))
    assert not graph.is_multigraph()
    assert not graph.is_directed()
    assert nx.number_of_selfloops(graph) == 0
    assert nx.is_connected(graph)


@pytest.mark.parametrize("name", NAMED)
def test_one_group_has_no_edge_and_two_have_one(name: str) -> None:
    assert edges_of(graphs.build(name, 1)) == set()
    assert edges_of(graphs.build(name, 2)) == {(0, 1)}


def test_ring() -> None:
    assert edges_of(graphs.ring(4)) == {(0, 1), (1, 2), (2, 3), (0, 3)}


def test_torus_of_two_rows_has_no_double_edges() -> None:
    ring, row_to_row = {(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5)}, {(0, 3), (1, 4), (2, 5)}
    assert edges_of(graphs.torus(6)) == ring | row_to_row
    assert edges_of(graphs.torus(4)) == {(0, 1), (2, 3), (0, 2), (1, 3)}


@pytest.mark.parametrize(("groups", "rows"), [(9, 3), (12, 3), (16, 4), (24, 4), (10, 2)])
def test_torus_is_the_most_square_one(groups: int, rows: int) -> None:
    assert nx.is_isomorphic(graphs.torus(groups), nx.grid_2d_graph(rows, groups // rows, periodic=True))


@pytest.mark.parametrize("groups", [3, 5, 7, 13])
def test_torus_of_a_prime_is_refused(groups: int) -> None:
    with pytest.raises(ConfigError, match=f"{groups} is prime: use topology ring"):
        graphs.torus(groups)


def test_exponential() -> None:
    assert sorted(graphs.exponential(8)[0]) == [1, 2, 4, 6, 7]
    assert sorted(graphs.exponential(6)[5]) == [0, 1, 3, 4]  # 5 + 4 = 3 (mod 6), also 5 - 2
    assert edges_of(graphs.exponential(5)) == edges_of(graphs.complete(5))


def test_complete_and_star() -> None:
    assert edges_of(graphs.complete(3)) == {(0, 1), (0, 2), (1, 2)}
    assert edges_of(graphs.star(4)) == {(0, 1), (0, 2), (0, 3)}


@pytest.mark.parametrize(
    "edges",
    [
        "0-1,1-2",
        " 0 - 1 , 2-1 ",
        "0>1,1>0,1-2",
        "1-0,0-1,0>1,1-2",
        [(0, 1), (1, 2)],
        np.array([[1, 0], [2, 1]]),
    ],
)
def test_edge_lists(edges: str | Iterable[graphs.Arc]) -> None:
    graph = graphs.from_edges(3, edges)
    assert edges_of(graph) == {(0, 1), (1, 2)}
    assert all(type(node) is int for node in graph)


def test_one_group_needs_no_edges() -> None:
    assert edges_of(graphs.from_edges(1, "")) == edges_of(graphs.from_edges(1, [])) == set()


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ("0-1,1-x", "edge '1-x': 'x' is not an integer; write"),
        ("0-1,1-2.0", "'2.0' is not an integer"),
        ("0-1,1-", "edge '1-': '' is not an integer"),
        ("0-1-2", "'1-2' is not an integer"),
        ("0-1,-1-2", "'' is not an integer"),
        ("0-1,1->2", "'1-' is not an integer"),
        ("0-1,,1-2", "'' in the edge list is no edge; write a-b"),
        ("0 1", "'0 1' in the edge list is no edge"),
        ([(0, 1.5)], r"edge \(0, 1.5\) is not an integer pair"),
        ([(0, 1, 2)], r"edge \(0, 1, 2\) is not an integer pair"),
        (["01"], "edge '01' is not an integer pair"),
        ([3], "edge 3 is not an integer pair"),
        ("0-1,1-3", "edge 1-3: there is no group 3; groups are 0 to 2"),
        ([(0, -1)], "there is no group -1"),
        ("0-1,1-1", "edge 1-1 is a self loop; remove it"),
        ("0>1,1-2", "not symmetric: 0>1 without 1>0; add 1>0 or write 0-1"),
        ("0-1", r"do not connect the groups: \[\[0, 1\], \[2\]\] are apart; add"),
        ("", r"\[\[0\], \[1\], \[2\]\] are apart"),
    ],
)
def test_bad_edge_lists_are_refused(edges: str | Iterable[graphs.Arc], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        graphs.from_edges(3, edges)


@given(st.integers(1, 12), st.data())
def test_from_edges_gives_back_any_connected_graph(groups: int, data: st.DataObject) -> None:
    chords = st.tuples(st.integers(0, groups - 1), st.integers(0, groups - 1)).filter(lambda e: e[0] != e[1])
    extra = data.draw(st.lists(chords)) if groups > 1 else []
    edges = [*((s, s + 1) for s in range(groups - 1)), *extra]
    text = ",".join(f"{a}-{b}" for a, b in edges)
    expected = {(min(edge), max(edge)) for edge in edges}
    assert edges_of(graphs.from_edges(groups, text)) == expected
    assert not text or edges_of(graphs.build(text, groups)) == expected
    assert edges_of(graphs.from_edges(groups, edges)) == expected


@pytest.mark.parametrize("name", graphs.NAMES)
@pytest.mark.parametrize("groups", [0, -1])
def test_no_groups_are_refused(name: str, groups: int) -> None:
    with pytest.raises(ConfigError, match=rf"at least one group \(groups: {groups}\)"):
        graphs.build(name, groups)


def test_unknown_topology_is_refused() -> None:
    known = "ring, torus, exponential, complete, star, one-peer-exponential, random-pairs"
    with pytest.raises(
        ConfigError, match=rf"unknown topology \(topology: 'mesh'\); there are: {known}; or .* edge list"
    ):
        graphs.build("mesh", 4)
    with pytest.raises(ConfigError, match=r"\(topology: 'rings'\); did you mean ring\?"):
        graphs.build("rings", 4)


@pytest.mark.parametrize("text", ["0-1,1-2", "2>1,1>2,0-1"])
def test_a_topology_may_be_an_edge_list(text: str) -> None:
    assert edges_of(graphs.build(text, 3)) == {(0, 1), (1, 2)}
    with pytest.raises(ConfigError, match=r"there is no group 2; groups are 0 to 1"):
        graphs.build(text, 2)
    with pytest.raises(ConfigError, match=r"do not connect the groups"):
        graphs.build(text, 4)


def test_no_edges_are_no_topology() -> None:
    with pytest.raises(ConfigError, match=r"unknown topology \(topology: ''\)"):
        graphs.build("", 1)


def test_a_graph_of_the_users_is_taken_in_the_order_of_the_groups() -> None:
    own: nx.Graph[int] = nx.Graph([(2, 1), (1, 0), (0, 1)])
    made = graphs.checked(own, 3)
    assert made is not own
    assert list(made) == [0, 1, 2]
    assert edges_of(made) == {(0, 1), (1, 2)}


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            nx.DiGraph([(0, 1), (1, 0), (1, 2), (2, 1)]),
            r"a directed graph has no rule .*mean but push-sum \(topology: DiGraph\); take mixing "
            r"push-sum, make it undirected with graph.to_undirected\(\), or give a mixing matrix",
        ),
        (nx.MultiDiGraph([(0, 1), (1, 2)]), r"a directed graph .*\(topology: MultiDiGraph\)"),
        (nx.MultiGraph([(0, 1), (0, 1), (1, 2)]), r"one edge between two groups \(topology: MultiGraph\); take"),
        (nx.Graph([(1, 2), (2, 3)]), r"must be the groups 0 to 2, not \[1, 2, 3\]; relabel them"),
        (nx.Graph([("a", "b"), ("b", "c")]), r"not \['a', 'b', 'c'\]; relabel them with networkx.convert"),
        (nx.path_graph(2), r"must be the groups 0 to 2, not \[0, 1\]"),
        (nx.path_graph(4), r"must be the groups 0 to 2, not \[0, 1, 2, 3\].*train as many groups"),
        (nx.Graph([(0, 1, {"weight": 0.5}), (1, 2, {})]), r"weights of the mixing, not its own \(edge: 0-1\); leave"),
        (nx.Graph([(0, 1), (1, 1), (1, 2)]), r"edge 1-1 is a self loop; remove it"),
        (nx.empty_graph(3), r"do not connect the groups: \[\[0\], \[1\], \[2\]\]"),
    ],
)
def test_a_graph_that_says_something_else_is_refused(graph: graphs.AnyGraph, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        graphs.checked(graph, 3)


def test_components() -> None:
    assert graphs.components(nx.Graph([(3, 1), (0, 2)])) == [[0, 2], [1, 3]]
