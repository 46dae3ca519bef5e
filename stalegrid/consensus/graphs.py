"""Which groups talk to which: communication graphs over the groups 0..S-1.

Does not know: weights, messages, what the groups train.

A graph is undirected and connected, without self loops or double edges.  The exponential graph is the static
one of Ying et al. 2021 (arXiv 2110.13363) with every edge taken both ways.
"""

import reprlib
from collections.abc import Callable, Iterable
from itertools import combinations
from math import isqrt
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

import networkx as nx

from stalegrid.errors import ConfigError
from stalegrid.written import unknown

Graph: TypeAlias = "nx.Graph[int]"
if TYPE_CHECKING:
    AnyGraph: TypeAlias = nx.Graph[Any]
else:
    AnyGraph = nx.Graph  # settings look at the types of their fields as they run, where it takes no argument
Arc: TypeAlias = tuple[int, int]  # one direction of an edge


def ring(groups: int) -> Graph:
    """Join every group to the next and the one before.

    Args:
        groups: S, at least 1.

    Raises:
        ConfigError: fewer than one group.
    """
    return _circulant(groups, [1])


def torus(groups: int) -> Graph:
    """Arrange the groups row by row in the most square rectangle and join neighbours, borders wrapping round.

    A side of 2 gives one edge per pair and a side of 1 none, so 4 groups make a ring and 2 groups one edge.

    Args:
        groups: S, at least 1 and not a prime above 2.

    Raises:
        ConfigError: fewer than one group, or a number that makes no rectangle.
    """
    check_groups(groups)
    rows = max(side for side in range(1, isqrt(groups) + 1) if groups % side == 0)
    if rows == 1 and groups > 2:
        raise ConfigError(
            f"a torus needs a number of groups that is a product; {groups} is prime: use topology ring, "
            f"or {groups - 1} or {groups + 1} groups"
        )
    columns = groups // rows
    rectangle = nx.cartesian_product(ring(rows), ring(columns))
    return _joined(groups, ((i * columns + j, k * columns + m) for (i, j), (k, m) in rectangle.edges))


def exponential(groups: int) -> Graph:
    """Join every group s to s + 2^i and s - 2^i (mod S) for all 2^i < S.

    Args:
        groups: S, at least 1.

    Raises:
        ConfigError: fewer than one group.
    """
    return _circulant(groups, [2**i for i in range((groups - 1).bit_length())])


def complete(groups: int) -> Graph:
    """Join every group to every other.

    Args:
        groups: S, at least 1.

    Raises:
        ConfigError: fewer than one group.
    """
    check_groups(groups)
    return _joined(groups, combinations(range(groups), 2))


def star(groups: int) -> Graph:
    """Join group 0 to every other group.

    Args:
        groups: S, at least 1.

    Raises:
        ConfigError: fewer than one group.
    """
    check_groups(groups)
    return _joined(groups, ((0, s) for s in range(1, groups)))


def from_edges(groups: int, edges: str | Iterable[Arc]) -> Graph:
    """Join the groups that the user's list joins.

    Args:
        groups: S, at least 1.
        edges: pairs (a, b), each joining both ways; or text such as ``"0-1,1-2"``, where ``a-b`` joins both
            ways and ``a>b`` one way, whose reverse must be in the list too.  An edge given twice counts once.

    Raises:
        ConfigError: fewer than one group, something that is no edge, an end that is no integer or no group, a
            self loop, a direction without its reverse, or groups that no path joins.
    """
    check_groups(groups)
    arcs = arcs_of_text(edges) if isinstance(edges, str) else _arcs_of_pairs(edges)
    check_arcs(arcs, groups)
    given = set(arcs)
    if one_way := next(((a, b) for a, b in arcs if (b, a) not in given), None):
        a, b = one_way
        raise ConfigError(
            f"edges are not symmetric: {a}>{b} without {b}>{a}; add {b}>{a} or write {a}-{b}, or take mixing push-sum"
        )
    graph = _joined(groups, arcs)
    if len(parts := components(graph)) > 1:
        raise ConfigError(f"edges do not connect the groups: {parts} are apart; add an edge between them")
    return graph


def build(name: str, groups: int) -> Graph:
    """Build the graph of a named topology, or of an edge list.

    Args:
        name: one of :data:`NAMES`, or an edge list such as ``0-1,1-2``; see :func:`from_edges`.
        groups: S, at least 1.

    Raises:
        ConfigError: an unknown name, or whatever the topology refuses.
    """
    if name in _BUILDERS:
        return _BUILDERS[name](groups)
    if name[:1].isdecimal():
        return from_edges(groups, name)
    if name in DIRECTED and groups > 1:
        raise ConfigError(f"push-sum alone can use edges of one direction (topology: {name}); take mixing push-sum")
    if name in DIRECTED:
        return ring(groups)
    names = [*NAMES, "one-peer-exponential", "random-pairs"]
    raise ConfigError(f"{unknown('topology', name, names)}; or give an edge list, such as 0-1,1-2")


def checked(graph: AnyGraph, groups: int) -> Graph:
    """Return a graph of the user's, in the form of this file.

    Args:
        graph: over the groups 0..S-1.
        groups: S.

    Raises:
        ConfigError: it is directed, has weights or double edges, is over something else than the groups, or whatever
            :func:`from_edges` refuses.
    """
    if graph.is_directed() and groups > 1:
        raise ConfigError(
            f"a directed graph has no rule here that keeps the groups' mean but push-sum (topology: "
            f"{type(graph).__name__}); take mixing push-sum, make it undirected with graph.to_undirected(), or give a "
            "mixing matrix whose rows and columns sum to 1"
        )
    check_form(graph, groups)
    return from_edges(groups, graph.edges)


def check_form(graph: AnyGraph, groups: int) -> None:
    """Refuse a graph of the user's that is over something else than the groups, or says more than who is joined.

    Raises:
        ConfigError: it does.
    """
    if set(graph) != set(range(groups)):
        raise ConfigError(
            f"the graph's nodes must be the groups 0 to {groups - 1}, not {reprlib.repr(list(graph))}; relabel them "
            "with networkx.convert_node_labels_to_integers, or train as many groups"
        )
    if graph.is_multigraph():
        name = type(graph).__name__
        raise ConfigError(f"a graph may have one edge between two groups (topology: {name}); take networkx.{name[5:]}")
    if weighed := next(((a, b) for a, b, data in graph.edges(data=True) if "weight" in data), None):
        raise ConfigError(
            f"a graph's edges get weights of the mixing, not its own (edge: {weighed[0]}-{weighed[1]}); leave the "
            "weights out, or give a matrix"
        )


def check_arcs(arcs: Iterable[Arc], groups: int) -> None:
    """Refuse an edge that joins no two groups.

    Raises:
        ConfigError: an end is no group, or both are the same.
    """
    for a, b in arcs:
        for end in (a, b):
            if not 0 <= end < groups:
                raise ConfigError(f"edge {a}-{b}: there is no group {end}; groups are 0 to {groups - 1}")
        if a == b:
            raise ConfigError(f"edge {a}-{b} is a self loop; remove it: a group always keeps its own share")


def edges_of(graph: AnyGraph) -> str:
    """Return the edges of a graph as text that :func:`build` takes, in an order of their own."""
    arrow = ">" if graph.is_directed() else "-"
    pairs = (map(str, edge) for edge in graph.edges())
    listed = sorted(arrow.join(pair if graph.is_directed() else sorted(pair)) for pair in pairs)
    # Without any edge there is one group, to which all topologies are alike.
    return ",".join(listed) or "ring"


def components(graph: Graph) -> list[list[int]]:
    """Return the groups of every connected part, each ascending, parts by their first group."""
    return sorted(sorted(part) for part in nx.connected_components(graph))


def check_groups(groups: int) -> None:
    """Refuse a number of groups below 1.

    Raises:
        ConfigError: fewer than one group.
    """
    if groups < 1:
        raise ConfigError(f"a topology needs at least one group (groups: {groups})")


def _joined(groups: int, arcs: Iterable[Arc]) -> Graph:
    graph: Graph = nx.Graph()  # counts an edge given twice, or from both ends, once
    graph.add_nodes_from(range(groups))
    graph.add_edges_from(arcs)
    return graph


def _circulant(groups: int, offsets: list[int]) -> Graph:
    """Join every group to those at the given distances; one of S or more would be a self loop or a repeat."""
    check_groups(groups)
    return _joined(groups, ((s, (s + d) % groups) for s in range(groups) for d in offsets if d < groups))


def arcs_of_text(text: str) -> list[Arc]:
    """Return the directions of an edge list such as ``0-1,1>2``.

    Raises:
        ConfigError: something in it is no edge.
    """
    arcs: list[Arc] = []
    for item in text.split(",") if text.strip() else ():
        one_way = ">" in item
        left, found, right = item.partition(">" if one_way else "-")
        if not found:
            raise ConfigError(f"{item.strip()!r} in the edge list is no edge; write a-b, or a>b for one direction")
        a, b = _group(left, item), _group(right, item)
        arcs += [(a, b)] if one_way else [(a, b), (b, a)]
    return arcs


def _group(text: str, item: str) -> int:
    if not text.strip().isdecimal():
        raise ConfigError(f"edge {item.strip()!r}: {text.strip()!r} is not an integer; write groups as 0, 1, 2, ...")
    return int(text)


def _arcs_of_pairs(pairs: Iterable[Arc]) -> list[Arc]:
    arcs: list[Arc] = []
    for pair in pairs:
        try:
            a, b = map(index, pair)
        except (TypeError, ValueError):
            raise ConfigError(f"edge {pair!r} is not an integer pair; give the two groups it joins") from None
        arcs += [(a, b), (b, a)]
    return arcs


_BUILDERS: dict[str, Callable[[int], Graph]] = {
    "ring": ring,
    "torus": torus,
    "exponential": exponential,
    "complete": complete,
    "star": star,
}

NAMES = tuple(_BUILDERS)
"""The topologies that :func:`build` knows by name."""

DIRECTED = ("directed-exponential",)
"""Those whose edges have one direction; see :mod:`stalegrid.consensus.directed`."""
