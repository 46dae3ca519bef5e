import pickle
from collections.abc import Callable, Sequence
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stalegrid.consensus import graphs
from stalegrid.consensus.matrices import (
    TOPOLOGIES,
    MixingMatrix,
    from_rows,
    metropolis,
    mixing_matrix,
    one_peer_exponential,
    uniform,
)
from stalegrid.errors import ConfigError

NAMED = TOPOLOGIES
SHIFT = np.roll(np.eye(3), 1, axis=1)


@st.composite
def mixings(draw: st.DrawFn) -> MixingMatrix:
    """Any named topology, or Metropolis weights on any connected graph."""
    groups = draw(st.integers(1, 24))
    name = draw(st.sampled_from([*NAMED, "edges"]))
    if name == "torus" and groups > 2 and all(groups % d for d in range(2, groups)):
        name = "ring"
    if name != "edges":
        return mixing_matrix(name, groups)
    parents = [draw(st.integers(0, s - 1)) for s in range(1, groups)]
    return mixing_matrix(",".join(f"{s}-{r}" for s, r in enumerate(parents, start=1)) or "ring", groups)


@given(mixings())
def test_matrices_are_doubly_stochastic_and_contract(mix: MixingMatrix) -> None:
    for matrix in mix.matrices:
        assert matrix.dtype == np.float64
        assert (matrix >= 0).all()
        np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1e-12)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    assert 0 < mix.spectral_gap <= 1


@given(mixings(), st.integers(0, 9))
def test_sources_and_targets_agree_with_the_weights_and_each_other(mix: MixingMatrix, turn: int) -> None:
    weights = mix.weights(turn)
    for s in range(len(weights)):
        assert mix.sources(s, turn) == tuple(r for r in range(len(weights)) if r != s and weights[s, r] != 0)
        for r in range(len(weights)):
            assert (r in mix.sources(s, turn)) == (s in mix.targets(r, turn))
        assert list(mix.targets(s, turn)) == sorted(mix.targets(s, turn))
        assert all(type(r) is int for r in mix.sources(s, turn) + mix.targets(s, turn))


@given(mixings(), st.data())
def test_a_cycle_contracts_at_least_as_the_gap_says(mix: MixingMatrix, data: st.DataObject) -> None:
    values = st.floats(-100, 100)
    x = data.draw(arrays(np.float64, len(mix.weights(0)), elements=values))
    mixed = x
    for turn in range(len(mix.matrices)):
        mixed = mix.weights(turn) @ mixed
    left = (1 - mix.spectral_gap) ** len(mix.matrices)
    assert np.linalg.norm(mixed - x.mean()) <= left * np.linalg.norm(x - x.mean()) + 1e-9


@pytest.mark.parametrize("groups", [3, 4, 5, 8, 13, 32])
def test_ring_has_thirds_and_the_closed_form_gap(groups: int) -> None:
    mix = mixing_matrix("ring", groups)
    others = np.cos(2 * np.pi * np.arange(1, groups) / groups)
    assert mix.weights(0)[0, 1] == mix.weights(0)[1, 0] == 1 / 3
    assert mix.spectral_gap == pytest.approx(1 - np.abs(1 / 3 + 2 / 3 * others).max(), abs=1e-12)


def test_ring_of_two_averages() -> None:
    np.testing.assert_array_equal(mixing_matrix("ring", 2).weights(0), np.full((2, 2), 0.5))


@pytest.mark.parametrize("groups", [1, 2, 3, 7, 16])
def test_metropolis_on_the_complete_graph_is_uniform(groups: int) -> None:
    complete = mixing_matrix("complete", groups)
    np.testing.assert_allclose(complete.weights(0), uniform(groups).weights(0), rtol=1e-14)
    assert complete.spectral_gap == uniform(groups).spectral_gap == 1


def test_metropolis_on_a_star_and_a_path() -> None:
    star = [[0.25, 0.25, 0.25, 0.25], [0.25, 0.75, 0, 0], [0.25, 0, 0.75, 0], [0.25, 0, 0, 0.75]]
    np.testing.assert_allclose(mixing_matrix("star", 4).weights(0), star)
    assert mixing_matrix("star", 4).spectral_gap == pytest.approx(0.25)  # eigenvalues 1, 3/4, 3/4, 0
    path = [[2 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1 / 3, 2 / 3]]
    np.testing.assert_allclose(mixing_matrix("0-1,1-2", 3).weights(0), path)
    assert mixing_matrix("0-1,1-2", 3).spectral_gap == pytest.approx(1 / 3)  # eigenvalues 1, 2/3, 0


def test_torus_of_sixteen() -> None:
    # Five equal shares: eigenvalues (1 + 2 cos a + 2 cos b) / 5 with a, b multiples of pi / 2.
    assert mixing_matrix("torus", 16).spectral_gap == pytest.approx(0.4)


@given(st.sampled_from(["ring", "exponential", "complete", "star"]), st.integers(2, 24))
def test_gap_of_a_symmetric_matrix_is_one_less_lambda_2(name: str, groups: int) -> None:
    mix = mixing_matrix(name, groups)
    eigenvalues = np.sort(np.abs(np.linalg.eigvalsh(mix.weights(0))))
    assert mix.spectral_gap == pytest.approx(1 - eigenvalues[-2], abs=1e-12)


def test_one_group_mixes_with_nobody() -> None:
    for name in NAMED:
        mix = mixing_matrix(name, 1)
        assert mix.weights(3).tolist() == [[1]]
        assert mix.sources(0, 0) == mix.targets(0, 0) == ()
        assert mix.spectral_gap == 1


def test_one_peer_takes_from_the_group_a_power_of_two_ahead() -> None:
    mix = one_peer_exponential(6)
    assert len(mix.matrices) == 3
    assert [mix.sources(5, turn) for turn in range(4)] == [(0,), (1,), (3,), (0,)]
    assert [mix.targets(5, turn) for turn in range(4)] == [(4,), (3,), (1,), (4,)]
    assert mix.weights(0)[5, 5] == mix.weights(0)[5, 0] == 0.5
    assert mix.weights(7) is mix.matrices[1]


@pytest.mark.parametrize("groups", [1, 2, 4, 8, 16, 64])
def test_one_peer_averages_powers_of_two_exactly_from_any_turn(groups: int) -> None:
    mix = one_peer_exponential(groups)
    turns = len(mix.matrices)
    assert turns == max(1, np.log2(groups))
    for first in range(turns):
        product = np.eye(groups)
        for turn in range(first, first + turns):
            product = mix.weights(turn) @ product
        np.testing.assert_array_equal(product, np.full((groups, groups), 1 / groups))
    assert mix.spectral_gap == 1


def test_one_peer_of_three_has_the_gap_of_its_cycle() -> None:
    # Both turns' eigenvalues have magnitude |1 + exp(2 pi i / 3)| / 2 = 1/2.
    assert one_peer_exponential(3).spectral_gap == pytest.approx(0.5)


def test_a_cycle_may_mix_though_no_turn_does() -> None:
    halves, none = np.full((2, 2), 0.5), np.zeros((2, 2))
    pairs = np.block([[halves, none], [none, halves]])
    across = np.kron(halves, np.eye(2))
    assert MixingMatrix((pairs, across)).spectral_gap == pytest.approx(1)
    with pytest.raises(ConfigError, match=r"split into \[\[0, 1\], \[2, 3\]\]"):
        MixingMatrix((pairs,))


def test_gap_of_a_cycle_multiplies_later_turns_from_the_left() -> None:
    first, second = np.array([[0.6, 0.3, 0.1], [0, 0.5, 0.5], [0.4, 0.2, 0.4]]), (2 * np.eye(3) + SHIFT) / 3
    third = first[[1, 0, 2]]

    def left(product: np.ndarray) -> float:
        return np.linalg.svd(product - 1 / 3, compute_uv=False)[0]

    assert left(third @ second @ first) != pytest.approx(left(first @ second @ third), rel=1e-3)
    gap = MixingMatrix((first, second, third)).spectral_gap
    assert gap == pytest.approx(1 - left(third @ second @ first) ** (1 / 3))


def test_own_matrix() -> None:
    rows = [[0.5, 0.25, 0.25], [0.25, 0.75, 0], [0.25, 0, 0.75]]
    mix = mixing_matrix(rows, 3)
    assert mix.weights(5).tolist() == rows
    assert mix.sources(1, 0) == mix.targets(1, 0) == (0,)
    assert mix.spectral_gap == pytest.approx(0.25)


def test_rounding_of_zero_makes_no_edge() -> None:
    mix = from_rows([[0.5, 0.5, -1e-17], [0.5, 0, 0.5], [1e-17, 0.5, 0.5]])
    assert mix.sources(0, 0) == mix.targets(0, 0) == (1,)
    assert mix.weights(0)[0, 2] == 0


@given(mixings())
def test_pickling_keeps_the_matrices_and_read_only(mix: MixingMatrix) -> None:
    copy = pickle.loads(pickle.dumps(mix))
    assert len(copy.matrices) == len(mix.matrices)
    for one, other in zip(copy.matrices, mix.matrices, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not one.flags.writeable
    assert copy.spectral_gap == mix.spectral_gap


def test_matrices_are_read_only_copies() -> None:
    matrix = np.full((2, 2), 0.5)
    mix = MixingMatrix((matrix,))
    matrix[0, 0] = 7
    assert mix.weights(0)[0, 0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        mix.weights(0)[0, 0] = 7


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        ((), "at least one matrix"),
        ((np.zeros((0, 0)),), r"shape \(0, 0\); it must be square"),
        ((np.ones(2),), r"shape \(2,\); it must be square"),
        ((np.full((2, 3), 0.5),), r"the mixing matrix has shape \(2, 3\)"),
        ((np.eye(2), np.eye(3)), r"of turn 1 has shape \(3, 3\); .* in every turn"),
        ((np.array([[np.nan, 1], [1, 0]]),), r"entry \[0, 0\] = nan is not finite"),
        ((np.array([[1, 0], [-np.inf, 1]]),), r"entry \[1, 0\] = -inf is not finite"),
        ((np.array([[1.5, -0.5], [-0.5, 1.5]]),), r"entry \[0, 1\] = -0.5 is negative"),
        ((np.array([[0.5, 0.5], [0.5, 0.4]]),), "row 1 sums to 0.9, not 1"),
        ((np.array([[0.5, 0.5 + 3e-9], [0.5, 0.5]]),), "row 0 sums to 1.000000003, not 1"),
        ((np.array([[0.5, 0.5], [0.7, 0.3]]),), "column 0 sums to 1.2, not 1"),
        ((np.eye(2), np.array([[0.5, 0.5], [0.5, 0.4]])), "matrix of turn 1: row 1 sums to 0.9"),
        (
            ((np.eye(3) + SHIFT) / 2,),
            r"not symmetric: entry \[0, 1\] = 0.5 but \[1, 0\] = 0.0; make them equal",
        ),
        (
            (np.eye(3),),
            r"does not mix \(\|lambda_2\| = 1\): the groups are split into \[\[0\], \[1\], \[2\]\]",
        ),
        ((np.array([[0.0, 1.0], [1.0, 0.0]]),), r"does not mix \(\|lambda_2\| = 1\): it is periodic"),
        ((np.array([[1 - 1e-10, 0.0], [0.0, 1 - 1e-10]]),), r"does not mix .* split into \[\[0\], \[1\]\]"),
        ((SHIFT, SHIFT), r"does not mix \(sigma over a cycle = 1\): it is periodic"),
        ((np.eye(3), np.eye(3)), r"sigma over a cycle = 1\): the groups are split"),
    ],
)
def test_bad_matrices_are_refused(matrices: tuple[np.ndarray, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MixingMatrix(matrices)


@pytest.mark.parametrize("rows", [[[1, 0], [0]], [["a"]], [[None]]])
def test_rows_that_are_no_matrix_are_refused(rows: Sequence[Sequence[float]]) -> None:
    with pytest.raises(ConfigError, match=r"must be rows of numbers of one length|is not finite"):
        from_rows(rows)


def test_graphs_that_are_not_over_the_groups_or_not_connected_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be the groups 0 to 1, not \[1, 2\]"):
        metropolis(nx.Graph([(1, 2)]))
    with pytest.raises(ConfigError, match=r"split into \[\[0, 1\], \[2, 3\]\]"):
        metropolis(nx.Graph([(0, 1), (2, 3)]))
    with pytest.raises(ConfigError, match="groups x groups"):
        metropolis(nx.Graph())


def test_self_loops_of_a_graph_leave_the_sums_at_one() -> None:
    graph = graphs.ring(3)
    graph.add_edge(0, 0)
    np.testing.assert_allclose(metropolis(graph).weights(0).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("mesh", r"unknown topology \(topology: 'mesh'\); there are: ring, .*, random-pairs; or give an edge"),
        ("matrix", r"unknown topology \(topology: 'matrix'\)"),
        ("edges", r"unknown topology \(topology: 'edges'\)"),
        ("0-1,1-2", "there is no group 2; groups are 0 to 1"),
        ([[1]], "is 1 x 1 but there are 2 groups; make them agree"),
        ([[0.5, 0.5], [0.5]], "must be rows of numbers of one length"),
        (nx.path_graph(3), "must be the groups 0 to 1"),
        (nx.DiGraph([(0, 1)]), "a directed graph"),
        ("tests.consensus.test_matrices:ROWS", "is 3 x 3 but there are 2 groups"),
        ("tests.consensus.test_matrices:NOWHERE", r"nothing of that name \(topology: tests.*, missing: NOWHERE, "),
        ("tests.consensus.nowhere:PATH", r"cannot be imported \(topology: tests.consensus.nowhere:PATH\)"),
    ],
)
def test_a_topology_that_is_none_of_the_groups_is_refused(topology: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixing_matrix(topology, 2)


PATH: "nx.Graph[int]" = nx.path_graph(3)
ROWS = np.array([[2 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1 / 3, 2 / 3]])
EDGES = "0-1,1-2"


@pytest.mark.parametrize(
    "topology",
    [PATH, ROWS.tolist(), EDGES, *(f"tests.consensus.test_matrices:{name}" for name in ("PATH", "ROWS", "EDGES"))],
    ids=str,
)
def test_a_topology_is_the_same_in_whichever_form_it_is_given(topology: Any) -> None:
    made = mixing_matrix(topology, 3)
    assert len(made.matrices) == 1
    np.testing.assert_allclose(made.weights(0), ROWS, atol=1e-15)


@pytest.mark.parametrize("build", [one_peer_exponential, uniform])
def test_no_groups_are_refused(build: Callable[[int], MixingMatrix]) -> None:
    with pytest.raises(ConfigError, match=r"at least one group \(groups: 0\)"):
        build(0)


@st.composite
def weighed(draw: st.DrawFn) -> MixingMatrix:
    """Draw a graph and batches of any sizes."""
    groups = draw(st.integers(1, 12))
    sizes = draw(st.lists(st.integers(1, 500), min_size=groups, max_size=groups))
    parents = [draw(st.integers(0, s - 1)) for s in range(1, groups)]
    tree = ",".join(f"{s}-{r}" for s, r in enumerate(parents, start=1)) or "ring"
    return mixing_matrix(draw(st.sampled_from(["ring", "star", "exponential", "complete", tree])), groups, sizes)


@given(weighed(), st.data())
def test_the_mean_that_is_weighed_by_samples_is_kept_and_approached(mix: MixingMatrix, data: st.DataObject) -> None:
    p, matrix = np.array(mix.sizes) / sum(mix.sizes), mix.weights(0)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(p @ matrix, p, atol=1e-12)
    np.testing.assert_allclose(p[:, None] * matrix, (p[:, None] * matrix).T, atol=1e-12)
    assert 0 < mix.spectral_gap <= 1
    x = data.draw(arrays(np.float64, len(p), elements=st.floats(-100, 100)))
    before, after = (np.sqrt(p @ (values - p @ x) ** 2) for values in (x, matrix @ x))
    assert after <= (1 - mix.spectral_gap) * before + 1e-9


@given(weighed())
def test_the_gap_is_that_of_the_second_eigenvalue(mix: MixingMatrix) -> None:
    moduli = sorted(np.abs(np.linalg.eigvals(mix.weights(0))))
    second = moduli[-2] if len(moduli) > 1 else 0.0
    assert mix.spectral_gap == pytest.approx(1 - second, abs=1e-6)  # eigenvalues of several are found so well


def test_groups_of_unlike_sizes_by_hand() -> None:
    path = mixing_matrix("0-1,1-2", 3, [6, 2, 4])  # 8, 12 and 6 samples around
    expected = [[10 / 12, 2 / 12, 0], [6 / 12, 2 / 12, 4 / 12], [0, 2 / 12, 10 / 12]]
    np.testing.assert_allclose(path.weights(0), expected, rtol=1e-15)
    for topology in ("complete", "ring"):  # where all are joined all have the mean in one turn
        np.testing.assert_allclose(mixing_matrix(topology, 3, [6, 2, 4]).weights(0), [[1 / 2, 1 / 6, 1 / 3]] * 3)
    assert mixing_matrix("complete", 3, [6, 2, 4]).spectral_gap == pytest.approx(1)
    left = mixing_matrix("complete", 3, [6, 2, 4]).without([1])
    np.testing.assert_allclose(left.weights(0), [[0.6, 0, 0.4], [0, 1, 0], [0.6, 0, 0.4]])
    assert left.spectral_gap == pytest.approx(1)
    assert pickle.loads(pickle.dumps(left)).sizes == path.sizes == (6, 2, 4)


@given(mixings(), st.integers(1, 999))
def test_sizes_that_are_one_change_no_bit(mix: MixingMatrix, size: int) -> None:
    if len(mix.matrices) > 1:
        return
    graph = nx.from_numpy_array(mix.weights(0) > 0)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    same = metropolis(graph, [size] * len(graph))
    np.testing.assert_array_equal(same.weights(0), mix.weights(0))
    assert same.spectral_gap == mix.spectral_gap


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ([[0.5, 0.5], [0.5, 0.5]], r"column 1 times the ratio .*\(batch_size: 3,1\) sums to 2, not 1"),
        ([[0.75, 0.25], [0.25, 0.75]], r"column 1 times .*sums to 1.5, not 1"),
        ("one-peer-exponential", r"keeps no mean .*\(batch_size: 3,1\); take another topology"),
        ([[1.0]], "1 x 1 but there are 2 groups"),
    ],
)
def test_what_does_not_keep_the_weighed_mean_is_refused(topology: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        mixing_matrix(topology, 2, [3, 1])


def test_a_matrix_that_keeps_the_weighed_mean_in_circles_is_not_symmetric() -> None:
    rows = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])
    with pytest.raises(ConfigError, match=r"not symmetric: entry \[0, 1\] = 0.5 but \[1, 0\] = 0.0; make"):
        from_rows(rows)
    # Half of the same flow, from groups of 1, 2 and 2 samples.
    flow = np.array([[0.6, 0.4, 0], [0, 1.6, 0.4], [0.4, 0, 1.6]])
    with pytest.raises(ConfigError, match=r"entry \[0, 1\] = 0.4 but \[1, 0\] times the ratio .*1,2,2\) = 0.0; make"):
        from_rows(flow / np.array([[1], [2], [2]]), [1, 2, 2])
