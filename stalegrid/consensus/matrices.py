"""How much of whom a group takes: the mixing matrices P of w_s(n+1) = sum_r P_sr w_r(n) + u_s(n).

Does not know: torch, messages, how the weighted sum is carried out.

Metropolis weights: Xiao, Boyd and Lall 2005.  One-peer exponential graph: Ying et al. 2021
(arXiv 2110.13363).

Where groups have batches of unlike sizes B_s, mixing keeps the mean that is weighed by them, p_s = B_s / sum B: P has
rows that sum to 1, and p is its left Perron vector, p P = p.  A step of all groups by the mean gradient of their own
batches then moves that mean by the mean gradient of all samples, as all-reduce would.  Static matrices are reversible,
p_s P_sr = p_r P_rs, which is symmetry where all sizes are one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from stalegrid.consensus import graphs
from stalegrid.errors import ConfigError
from stalegrid.written import is_path, value_of

Matrix: TypeAlias = NDArray[np.float64]

Topology = str | Sequence[Sequence[float]] | Matrix | graphs.AnyGraph

ONE_PEER = "one-peer-exponential"

TOPOLOGIES = (*graphs.NAMES, ONE_PEER)
"""The topologies that have a name."""

_SUMS = 1e-9  # how far sums may be from 1, and mirrored entries from each other
_NOTHING = 1e-12  # smaller than this is rounding of zero
_LEAST_GAP = 10 * _SUMS  # sums that are off by _SUMS can make a split matrix look as if it mixed that much


@dataclass(frozen=True, eq=False)
class Shares:
    """Who takes how much of whom, by turn, repeated in a cycle.

    Row s holds the shares that group s takes, so ``matrices[t][s, r]`` is the weight of group r's parameters
    in group s's.

    Attributes:
        matrices: T arrays (S, S) of float64.
        sizes: samples of each group's batch; alike if left out.
    """

    matrices: tuple[Matrix, ...]
    sizes: tuple[int, ...] = ()

    def weights(self, turn: int) -> Matrix:
        """Return the matrix (S, S) of a mixing turn, read-only."""
        return self.matrices[turn % len(self.matrices)]

    def sources(self, group: int, turn: int) -> tuple[int, ...]:
        """Return the other groups that ``group`` takes from in a turn, ascending."""
        return self._neighbours[turn % len(self.matrices)][0][group]

    def targets(self, group: int, turn: int) -> tuple[int, ...]:
        """Return the other groups that take from ``group`` in a turn, ascending."""
        return self._neighbours[turn % len(self.matrices)][1][group]

    def neighbours(self, group: int) -> tuple[int, ...]:
        """Return the other groups that ``group`` ever takes from, ascending."""
        return tuple(sorted({r for turn in range(len(self.matrices)) for r in self.sources(group, turn)}))

    @cached_property
    def _neighbours(self) -> list[tuple[list[tuple[int, ...]], list[tuple[int, ...]]]]:
        """Sources and targets of every group, by turn: programs ask for them in every round."""

        def others(matrix: Matrix) -> list[tuple[int, ...]]:
            return [_others(row, group) for group, row in enumerate(matrix)]

        return [(others(matrix), others(matrix.T)) for matrix in self.matrices]


@dataclass(frozen=True, eq=False)
class MixingMatrix(Shares):
    """Mixing matrices, one a mixing turn, repeated in a cycle; checked to keep the groups' mean, and to contract.

    Entries within 1e-12 of zero become zero; the arrays are read-only copies.

    Attributes:
        matrices: T arrays (S, S) of float64; one for a static topology, which must be symmetric, several for
            a time-varying one.
        sizes: samples of each group's batch, which weigh the mean; alike if left out.

    Raises:
        ConfigError: a matrix is not square or not of the others' size, an entry is not finite or negative, a
            row or column, weighed by the sizes, does not sum to 1 within 1e-9, a static matrix, weighed likewise, is
            not symmetric, or a cycle does not bring every group closer to the mean.
    """

    def __post_init__(self) -> None:
        if not self.matrices:
            raise ConfigError("mixing needs at least one matrix; give one of groups x groups")
        object.__setattr__(self, "matrices", tuple(map(frozen, self.matrices)))
        size = len(self.matrices[0])
        object.__setattr__(self, "sizes", self.sizes or (1,) * size)
        static = len(self.matrices) == 1
        for turn, matrix in enumerate(self.matrices):
            name = "the mixing matrix" if static else f"the mixing matrix of turn {turn}"
            _check_entries(matrix, size, name)
            _check_groups(size, len(self.sizes))
            _check_sums(matrix, self.sizes, name)
        if static:
            _check_symmetric(self.matrices[0], self.sizes)
        self._check_contracting()

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickled arrays are writable; the constructor makes them read-only again.
        return MixingMatrix, (self.matrices, self.sizes)

    @cached_property
    def spectral_gap(self) -> float:
        """How much closer to their mean the groups come in a turn: 0 never, 1 at once.

        For a cycle of T matrices 1 - sigma^(1/T), where sigma = || P_T ... P_1 - 1p ||_2 bounds what a whole cycle
        leaves of the distance to the mean, p = 1/S where all sizes are one, and the norm is that in which distances
        are weighed by p.  For one matrix this is 1 - abs(lambda_2), with lambda_2 the eigenvalue of second largest
        magnitude.  One group: 1.
        """
        return float(1.0 - self._left_by_cycle ** (1.0 / len(self.matrices)))

    @cached_property
    def _left_by_cycle(self) -> float:
        product = reduce(lambda before, matrix: matrix @ before, self.matrices)
        # The norm and not an eigenvalue: a product of a cycle need not be symmetric.
        sizes = np.array(self.sizes, dtype=np.float64)
        scale = np.sqrt(_ratios(self.sizes))
        left = float(np.linalg.norm((product - sizes / sizes.sum()) * scale, 2))
        return left if left > _NOTHING else 0.0  # the T-th root would make much of a rounding error

    def without(self, gone: Collection[int]) -> "MixingMatrix":
        """Return the mixing of the groups that are left: Metropolis weights on the edges between them.

        Args:
            gone: the others, each of which keeps to itself.

        Raises:
            ConfigError: nobody is left, the graph of those who are falls apart, or it is another one in each turn.
        """
        kept = [s for s in range(len(self.matrices[0])) if s not in gone]
        if not kept:
            raise ConfigError("no group is left")
        if len(self.matrices) > 1:
            raise ConfigError(
                f"a topology that is another one in each turn cannot close around groups that are gone (gone: "
                f"{sorted(gone)}); take one that stays, such as a ring"
            )
        graph = nx.from_numpy_array(self.matrices[0][np.ix_(kept, kept)] > 0)
        graph.remove_edges_from(list(nx.selfloop_edges(graph)))
        whole = np.eye(len(self.matrices[0]))
        whole[np.ix_(kept, kept)] = metropolis(graph, [self.sizes[s] for s in kept]).matrices[0]
        return Remaining((whole,), self.sizes, tuple(kept))

    def _check_contracting(self) -> None:
        if self._left_by_cycle < 1.0 - _LEAST_GAP:
            return
        measure = "|lambda_2|" if len(self.matrices) == 1 else "sigma over a cycle"
        # An edge wherever something is ever exchanged, in either direction.
        parts = graphs.components(nx.from_numpy_array(np.sum(self.matrices, axis=0)))
        reason = (
            f"the groups are split into {parts}; give some weight between them"
            if len(parts) > 1
            else "it is periodic or hardly mixes; give every group a share of itself and of others"
        )
        raise ConfigError(f"the mixing does not mix ({measure} = {self._left_by_cycle:.10g}): {reason}")


@dataclass(frozen=True, eq=False)
class Remaining(MixingMatrix):
    """The mixing of some of the groups, checked where it was made of theirs alone; the others keep to themselves.

    Attributes:
        kept: the groups that mix.
    """

    kept: tuple[int, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return Remaining, (self.matrices, self.sizes, self.kept)

    @cached_property
    def spectral_gap(self) -> float:
        """How much closer to their mean the groups that are left come in a turn."""
        own = self.matrices[0][np.ix_(self.kept, self.kept)]
        return MixingMatrix((own,), tuple(self.sizes[s] for s in self.kept)).spectral_gap

    def _check_contracting(self) -> None:
        """Check nothing: those who are gone are never brought closer to anybody."""


@dataclass(frozen=True, eq=False)
class Widening:
    """The mixing of groups of which some come to it later, read like a :class:`MixingMatrix`.

    Attributes:
        phases: mixings and the turns from which each holds, ascending, the first from any.
    """

    phases: tuple[tuple[int, Shares], ...]

    def weights(self, turn: int) -> Matrix:
        """Return the matrix (S, S) of a mixing turn, read-only."""
        return self._of(turn).weights(turn)

    def sources(self, group: int, turn: int) -> tuple[int, ...]:
        """Return the other groups that ``group`` takes from in a turn, ascending."""
        return self._of(turn).sources(group, turn)

    def targets(self, group: int, turn: int) -> tuple[int, ...]:
        """Return the other groups that take from ``group`` in a turn, ascending."""
        return self._of(turn).targets(group, turn)

    def neighbours(self, group: int) -> tuple[int, ...]:
        """Return the other groups that ``group`` ever takes from, ascending."""
        return tuple(sorted({r for _, mixing in self.phases for r in mixing.neighbours(group)}))

    def _of(self, turn: int) -> Shares:
        return next((mixing for first, mixing in reversed(self.phases) if first <= turn), self.phases[0][1])


def metropolis(graph: graphs.Graph, sizes: Sequence[int] = ()) -> MixingMatrix:
    """Weigh every edge 1 / (1 + the larger degree of its ends); a group keeps the rest.

    With unlike sizes group s takes B_r / max(N_s, N_r) of group r, where N_s counts the samples of s and all its
    neighbours: as if each sample were a node, joined to those of its group and of the neighbours.  So all have the mean
    in a turn where all are joined, and p is kept, since B_s P_sr = B_r P_rs.

    Args:
        graph: undirected, with nodes 0..S-1.
        sizes: samples of each group's batch; alike if left out.

    Raises:
        ConfigError: nodes that are not 0..S-1, or a graph that is not connected.
    """
    size = len(graph)
    if set(graph) != set(range(size)):
        raise ConfigError(f"the graph's nodes must be the groups 0 to {size - 1}, not {list(graph)}; relabel them")
    matrix, own = np.zeros((size, size)), list(sizes) or [1] * size
    around = [own[s] + sum(own[r] for r in graph[s] if r != s) for s in range(size)]
    for s, r in graph.edges:
        matrix[s, r], matrix[r, s] = (own[other] / max(around[s], around[r]) for other in (r, s))
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, 1.0 - matrix.sum(axis=1))
    return MixingMatrix((matrix,), tuple(own))


def one_peer_exponential(groups: int) -> MixingMatrix:
    """Average every group s with one other, s + 2^t (mod S), in turn t of a cycle of tau = ceil(log2 S).

    After a cycle all groups hold the mean exactly if S is a power of two.

    Args:
        groups: S, at least 1.

    Raises:
        ConfigError: fewer than one group.
    """
    graphs.check_groups(groups)
    itself = np.eye(groups)
    turns = max(1, (groups - 1).bit_length())  # ceil(log2 S), and one turn for a single group
    return MixingMatrix(tuple((itself + np.roll(itself, 2**turn, axis=1)) / 2 for turn in range(turns)))


def uniform(groups: int) -> MixingMatrix:
    """Give every group the mean of all, 11^T/S.

    Args:
        groups: S, at least 1.

    Raises:
        ConfigError: fewer than one group.
    """
    graphs.check_groups(groups)
    return MixingMatrix((np.full((groups, groups), 1.0 / groups),))


def from_rows(rows: Sequence[Sequence[float]] | Matrix, sizes: Sequence[int] = ()) -> MixingMatrix:
    """Take the user's own matrix.

    Args:
        rows: S rows of S shares; row s is what group s takes of each group.
        sizes: samples of each group's batch; alike if left out.

    Raises:
        ConfigError: not a rectangle of numbers, or whatever :class:`MixingMatrix` refuses.
    """
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a mixing matrix must be rows of numbers of one length: {error}") from None
    return MixingMatrix((matrix,), tuple(sizes))


def mixing_matrix(topology: Topology, groups: int, sizes: Sequence[int] = ()) -> MixingMatrix:
    """Return the mixing matrix of a topology; graphs get Metropolis weights.

    Args:
        topology: a name of :data:`TOPOLOGIES`; an edge list such as ``0-1,1-2``; a graph; rows of a matrix; or the path
            ``PACKAGE.MODULE:NAME`` of one of these.
        groups: S, at least 1.
        sizes: samples of each group's batch; alike if left out.

    Raises:
        ConfigError: an unknown name, a graph or a matrix of another number of groups, one that cannot keep a mean that
            is weighed by unlike sizes, or whatever these refuse.
    """
    topology = named_topology(topology)
    if isinstance(topology, nx.Graph):
        return metropolis(graphs.checked(topology, groups), sizes)
    if not isinstance(topology, str):
        return from_rows(topology, sizes or [1] * groups)
    if topology == ONE_PEER:
        _check_alike(sizes)
        return one_peer_exponential(groups)
    return metropolis(graphs.build(topology, groups), sizes)


def named_topology(topology: Topology) -> Topology:
    """Return a topology, or the one that a path ``PACKAGE.MODULE:NAME`` names.

    Raises:
        ConfigError: there is none.
    """
    if not is_path(topology):
        return topology
    found = value_of(topology, "topology")
    found = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(found, nx.Graph | list | tuple | str):
        raise ConfigError(
            f"this is no topology (topology: {topology}, it is: {type(found).__name__}); name a graph of networkx, "
            "an edge list or the rows of a matrix"
        )
    return found


def _check_alike(sizes: Sequence[int]) -> None:
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"with {ONE_PEER} every group takes half of one other, which keeps no mean that is weighed by unlike sizes "
            f"(batch_size: {','.join(map(str, sizes))}); take another topology, such as exponential"
        )


def _check_groups(size: int, groups: int) -> None:
    if size != groups:
        raise ConfigError(f"the mixing matrix is {size} x {size} but there are {groups} groups; make them agree")


def _ratios(sizes: Sequence[int]) -> Matrix:
    """Return B_s / B_r, which is 1 to the bit where all are alike."""
    own = np.array(sizes, dtype=np.float64)
    return own[:, None] / own[None, :]


def frozen(matrix: Matrix) -> Matrix:
    """Return a read-only copy in which what is rounding of zero is zero."""
    copy = np.array(matrix, dtype=np.float64)
    copy[np.abs(copy) <= _NOTHING] = 0.0
    copy.flags.writeable = False
    return copy


def _others(shares: Matrix, group: int) -> tuple[int, ...]:
    return tuple(int(r) for r in np.flatnonzero(shares) if r != group)


def _check_entries(matrix: Matrix, size: int, name: str) -> None:
    if matrix.shape != (size, size) or not size:
        raise ConfigError(f"{name} has shape {matrix.shape}; it must be square, groups x groups, in every turn")
    for fault, where in (("not finite", ~np.isfinite(matrix)), ("negative", matrix < 0)):
        if where.any():
            s, r = np.argwhere(where)[0]
            raise ConfigError(f"{name}: entry [{s}, {r}] = {matrix[s, r]} is {fault}; shares lie between 0 and 1")


def _check_sums(matrix: Matrix, sizes: Sequence[int], name: str) -> None:
    given = matrix * _ratios(sizes)
    for line, how, sums in (("row", "", matrix.sum(axis=1)), ("column", _by(sizes), given.sum(axis=0))):
        worst = int(np.abs(sums - 1.0).argmax())
        if abs(sums[worst] - 1.0) > _SUMS:
            raise ConfigError(
                f"{name}: {line} {worst}{how} sums to {sums[worst]:.12g}, not 1; rows and columns must, or the "
                "groups' mean drifts"
            )


def _check_symmetric(matrix: Matrix, sizes: Sequence[int]) -> None:
    given = (matrix * _ratios(sizes)).T
    difference = np.abs(matrix - given)
    s, r = np.unravel_index(difference.argmax(), difference.shape)
    if difference[s, r] > _SUMS:
        raise ConfigError(
            f"the mixing matrix is not symmetric: entry [{s}, {r}] = {matrix[s, r]} but [{r}, {s}]{_by(sizes)} = "
            f"{given[s, r]}; make them equal"
        )


def _by(sizes: Sequence[int]) -> str:
    """Say by what entries are weighed, where they are."""
    shown = ",".join(map(str, sizes))
    return "" if len(set(sizes)) == 1 else f" times the ratio of the groups' samples (batch_size: {shown})"
