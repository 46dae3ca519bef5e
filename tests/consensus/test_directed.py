import copy
import pickle
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stalegrid.consensus.directed import directed_exponential, push_matrix
from stalegrid.consensus.graphs import NAMES
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.errors import ConfigError


@st.composite
def strong(draw: st.DrawFn) -> "nx.DiGraph[int]":
    """Any graph in which every group reaches every other: a circle through all, and more edges."""
    groups = draw(st.integers(2, 7))
    order = draw(st.permutations(range(groups)))
    graph: nx.DiGraph[int] = nx.DiGraph(zip(order, [*order[1:], order[0]], strict=True))
    pairs = [(a, b) for a in range(groups) for b in range(groups) if a != b]
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs))))
    return graph


@given(graph=strong())
def test_everybody_parts_what_it_has_equally_and_all_of_it_arrives(graph: "nx.DiGraph[int]") -> None:
    made = push_matrix(graph, len(graph))
    shares = made.weights(0)
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-15)
    for source in graph:
        targets = set(graph.successors(source)) | {source}
        assert {int(s) for s in np.flatnonzero(shares[:, source])} == targets
        assert set(shares[list(targets), source]) == {1 / len(targets)}
        assert set(made.targets(source, 0)) == targets - {source}
        assert set(made.sources(source, 0)) == set(graph.predecessors(source))
    assert 0 < made.spectral_gap <= 1
    # What is passed on for ever is parted alike between all sources: x / w is the mean.
    limit = np.linalg.matrix_power(shares, 4000)
    np.testing.assert_allclose(limit / limit.sum(axis=1, keepdims=True), 1 / len(graph), atol=1e-6)


@given(groups=st.integers(1, 48), name=st.sampled_from(["ring", "exponential", "complete"]))
def test_with_edges_both_ways_and_one_degree_the_shares_are_metropolis_weights(groups: int, name: str) -> None:
    made, plain = push_matrix(name, groups).weights(0), mixing_matrix(name, groups).weights(0)
    away = ~np.eye(groups, dtype=bool)
    np.testing.assert_array_equal(made[away], plain[away])


def test_text_names_who_sends_first() -> None:
    shares = push_matrix("0>1,1>2,2>0,0-2", 3).weights(0)
    np.testing.assert_allclose(shares, [[1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1 / 2]])


def test_directed_exponential_sends_to_powers_of_two_ahead() -> None:
    assert sorted(directed_exponential(8).successors(6)) == [0, 2, 7]
    assert list(directed_exponential(1).edges) == []
    assert push_matrix("directed-exponential", 4).spectral_gap == pytest.approx(2 / 3)


def test_one_peer_exponential_sends_to_one_ahead_in_turn() -> None:
    made = push_matrix("one-peer-exponential", 4)
    assert [made.targets(3, turn) for turn in range(3)] == [(0,), (1,), (0,)]
    assert made.neighbours(0) == (2, 3)
    assert made.spectral_gap == 1


def test_it_survives_copies_and_stays_read_only() -> None:
    made = push_matrix("0>1,1>0", 2)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        np.testing.assert_array_equal(other.weights(0), made.weights(0))
        with pytest.raises(ValueError, match="read-only"):
            other.weights(0)[0, 0] = 1


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("0>1,1>0,1>2", r"every other: what groups \[2\] hold never comes to \[0, 1\]; add an edge .*such as 2>0"),
        ("0>1", r"what groups \[1\] hold never comes to \[0, 2\]"),
        ("0-1", r"what groups \[0, 1\] hold never comes to \[2\]"),
        ("", "unknown topology"),
        ("0>0,0>1,1>2,2>0", "edge 0-0 is a self loop"),
        ("0>1,1>3", "there is no group 3"),
        (nx.DiGraph([(0, 1), (1, 0)]), r"must be the groups 0 to 2"),
        (nx.MultiDiGraph([(0, 1), (1, 2), (2, 0)]), r"one edge .*MultiDiGraph\); take networkx.DiGraph"),
        (nx.DiGraph([(0, 1, {"weight": 2}), (1, 2, {}), (2, 0, {})]), "weights of the mixing, not its own"),
        ([[1 / 3] * 3] * 3, "makes its matrix of a graph"),
        ("tree", "unknown topology"),
        ("random:nothing", "the module has nothing of that name"),
    ],
)
def test_what_cannot_be_pushed_through_is_refused(topology: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        push_matrix(topology, 3)


def test_a_mean_that_is_weighed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"keeps the plain mean .*\(batch_size: 6,2\)"):
        push_matrix("ring", 2, [6, 2])


def test_groups_cannot_be_left_out() -> None:
    with pytest.raises(ConfigError, match=r"end with any of them \(gone: \[1\]\)"):
        push_matrix("ring", 3).without([1])


@pytest.mark.parametrize("topology", ["directed-exponential", "0>1,1>2,2>0", nx.DiGraph([(0, 1), (1, 2), (2, 0)])])
def test_others_refuse_edges_of_one_direction_and_name_push_sum(topology: Any) -> None:
    with pytest.raises(ConfigError, match="push-sum"):
        mixing_matrix(topology, 3)


def test_one_group_has_nobody_to_send_to() -> None:
    lonely: nx.DiGraph[int] = nx.DiGraph()
    lonely.add_node(0)
    for topology in (*NAMES, "directed-exponential", "one-peer-exponential", lonely):
        assert mixing_matrix(topology, 1).weights(0).tolist() == [[1.0]]
        assert push_matrix(topology, 1).weights(0).tolist() == [[1.0]]
