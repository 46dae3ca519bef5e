"""What groups shall exchange, with whom and when.

Does not know: how any of it is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import networkx as nx

from stalegrid.consensus.graphs import AnyGraph, edges_of
from stalegrid.consensus.mixing import Mixing
from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class MixingSettings(Group):
    """What groups exchange.

    Args:
        kind: none, combine-while-adapt, adapt-then-combine, all-reduce, choco,gamma=NUMBER, or PACKAGE.MODULE:NAME of
            your own; the method's if left out.
        topology: who mixes with whom: ring, torus, exponential, complete, star, one-peer-exponential; an edge list such
            as 0-1,1-2 (both ways) or 0>1,1>0; a networkx graph (PACKAGE.MODULE:NAME); or the rows of a mixing matrix.
        period: H, updates from one mixing to the next.
        lag: c, mix with the neighbours' parameters of that many updates ago.
        momentum: mix the optimizer's momentum buffers too.
    """

    NAME: ClassVar[str] = "mixing"
    OWN: ClassVar[str | None] = "kind"

    kind: str | Mixing | type[Mixing] | None = None
    topology: str | list[list[float]] | AnyGraph = "ring"
    period: int = 1
    lag: int = 0
    momentum: bool = False

    def said(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields as they are written down, a graph as the list of its edges."""
        own = {name: edges_of(value) if isinstance(value, nx.Graph) else value for name, value in fields.items()}
        return super().said(own)
