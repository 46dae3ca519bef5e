"""Which groups send to which, where edges have one direction: the matrices A of push-sum.

Does not know: torch, messages, how the weighted sum is carried out.

Group i parts what it has equally among those it sends to and itself: ``A_ji = 1 / (1 + outdegree of i)``, so columns
sum to 1, and rows need not.  A group must know to how many it sends, and not who sends to them (Assran et al. 2019,
arXiv 1811.10792).  What is lost by nobody on its way reaches everybody where the graph is strongly connected.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, TypeAlias

import networkx as nx
import numpy as np

from stalegrid.consensus import graphs
from stalegrid.consensus.matrices import ONE_PEER, Shares, Topology, frozen, named_topology, one_peer_exponential
from stalegrid.errors import ConfigError

Directed: TypeAlias = "nx.DiGraph[int]"


@dataclass(frozen=True, eq=False)
class PushMatrix(Shares):
    """How much each group sends to whom, by turn: columns sum to 1, as :func:`push_matrix` makes them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrices", tuple(map(frozen, self.matrices)))
        object.__setattr__(self, "sizes", self.sizes or (1,) * len(self.matrices[0]))

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickled arrays are writable; the constructor makes them read-only again.
        return PushMatrix, (self.matrices, self.sizes)

    @cached_property
    def spectral_gap(self) -> float:
        """How much closer to each other the groups come in a turn, in the long run: 0 never, 1 at once.

        For a cycle of T matrices 1 - abs(lambda_2)^(1/T), with lambda_2 the eigenvalue of second largest magnitude of
        their product.  A matrix that is not symmetric may take longer at first.
        """
        product = reduce(lambda before, matrix: matrix @ before, self.matrices)
        largest = sorted(abs(np.linalg.eigvals(product)), reverse=True)
        second = largest[1] if len(largest) > 1 and largest[1] > 1e-12 else 0.0  # the T-th root makes much of rounding
        return float(1.0 - second ** (1.0 / len(self.matrices)))

    def without(self, gone: Collection[int]) -> "PushMatrix":
        """Refuse to leave groups out: what they held of the sums would be missing.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"push-sum keeps sums over all groups, which end with any of them (gone: {sorted(gone)})")


def push_matrix(topology: Topology, groups: int, sizes: Sequence[int] = ()) -> PushMatrix:
    """Return how much each group sends to whom.

    Args:
        topology: a name, of which ``directed-exponential`` is for this alone; an edge list such as ``0>1,1>2,2>0``,
            where ``a>b`` lets a send to b and ``a-b`` both to each other; a graph of networkx, directed or not; or the
            path ``PACKAGE.MODULE:NAME`` of one of these.
        groups: S, at least 1.
        sizes: samples of each group's batch, which must be alike.

    Raises:
        ConfigError: an unknown name, something that is no graph over the groups, groups that cannot reach others, or
            batches of unlike sizes.
    """
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"push-sum keeps the plain mean of the groups, and none that is weighed by unlike sizes (batch_size: "
            f"{','.join(map(str, sizes))}); take batches of one size"
        )
    topology = named_topology(topology)
    if isinstance(topology, str) and topology == ONE_PEER:
        return PushMatrix(tuple(turn.T for turn in one_peer_exponential(groups).matrices))
    graph = _graph(topology, groups)
    matrix = np.eye(groups)
    for source, target in graph.edges:
        matrix[target, source] = 1.0
    return PushMatrix((matrix / matrix.sum(axis=0),))


def directed_exponential(groups: int) -> Directed:
    """Let every group s send to s + 2^i (mod S) for all 2^i < S.

    Args:
        groups: S, at least 1.

    Raises:
        ConfigError: fewer than one group.
    """
    graphs.check_groups(groups)
    hops = [2**i for i in range((groups - 1).bit_length())]
    return _joined(groups, [(s, (s + hop) % groups) for s in range(groups) for hop in hops])


def _graph(topology: Topology, groups: int) -> Directed:
    if isinstance(topology, nx.Graph):
        graphs.check_form(topology, groups)
        arcs = list(topology.to_directed().edges)
    elif not isinstance(topology, str):
        raise ConfigError(
            "push-sum makes its matrix of a graph (topology: rows of a matrix); give a name, an edge list or a graph "
            "of networkx"
        )
    elif topology in graphs.DIRECTED:
        return directed_exponential(groups)
    elif topology[:1].isdecimal():
        arcs = graphs.arcs_of_text(topology)
    else:
        arcs = list(graphs.build(topology, groups).to_directed().edges)
    graphs.check_arcs(arcs, groups)
    graph = _joined(groups, arcs)
    _check_reaching(graph)
    return graph


def _joined(groups: int, arcs: Sequence[graphs.Arc]) -> Directed:
    graph: Directed = nx.DiGraph()  # counts an edge given twice once
    graph.add_nodes_from(range(groups))
    graph.add_edges_from(arcs)
    return graph


def _check_reaching(graph: Directed) -> None:
    """Refuse a graph in which some group does not reach every other, over however many edges."""
    if nx.is_strongly_connected(graph):
        return
    parts = nx.condensation(graph)
    # There is one from which nothing goes out, since the parts form no circle.
    last = min(sorted(parts.nodes[part]["members"]) for part in parts if not parts.out_degree(part))
    others = sorted(set(graph) - set(last))
    raise ConfigError(
        f"not every group reaches every other: what groups {last} hold never comes to {others}; add an edge from one "
        f"of the first to one of the others, such as {last[0]}>{others[0]}"
    )
