"""What groups shall exchange, with whom and when.

Does not know: how any of it is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import networkx as nx

from stalegrid.consensus.graphs import AnyGraph, edges_of
from stalegrid.consensus.mixing import Mixing
from stalegrid.written import Group

LagRule = Literal["own-current", "delta", "ema"]


@dataclass(frozen=True, kw_only=True)
class MixingSettings(Group):
    """What groups exchange.

    Args:
        kind: none, combine-while-adapt, adapt-then-combine, all-reduce, pairwise, push-sum, exact-diffusion,
            gradient-tracking (the last two are published without staleness and for SGD), choco,gamma=1.0; an outer
            optimizer, with its numbers where they are others: outer,rate=0.7,momentum=0.9,keep=0.0 or
            noloco,rate=0.7,momentum=0.9; or PACKAGE.MODULE:NAME of your own; the method's if left out.
        topology: who mixes with whom: ring, torus, exponential, complete, star, one-peer-exponential, random-pairs; an
            edge list such as 0-1,1-2 (both ways) or 0>1,1>0; a networkx graph (PACKAGE.MODULE:NAME); the rows of a
            mixing matrix; or, with push-sum alone, directed-exponential and edges of one direction, 0>1,1>2,2>0, from
            who sends; if left out complete for outer, random-pairs for noloco, ring for all others.
        period: H, updates from one mixing to the next; the method's if left out, usually 1.
        lag: c, mix with the neighbours' parameters of that many updates ago; the method's if left out, usually 0.
        lag_rule: what is made of what is late: own-current measures neighbours against one's own of now; delta mixes
            snapshots and adds what that would have changed, which keeps the mean over groups; ema adds an estimate of
            what was missed to the mean of snapshots; the method's if left out, usually own-current.
        sparse: p, share of every tensor that a round exchanges, in (0, 1]: the next of 1/p random parts, drawn anew
            for each cycle; the method's if left out, usually 1.
        momentum: mix the optimizer's momentum buffers too.
        fragments: let stages take turns within a period, stage k floor(k H / K) updates after the first, not all
            at once; the method's if left out, usually not.
        meetings: record of who met whom in a run that averaged in pairs, to be repeated on the simulator.
    """

    NAME: ClassVar[str] = "mixing"
    OWN: ClassVar[str | None] = "kind"

    kind: str | Mixing | type[Mixing] | None = None
    topology: str | list[list[float]] | AnyGraph | None = None
    period: int | None = None
    lag: int | None = None
    lag_rule: LagRule | None = None
    sparse: float | None = None
    momentum: bool = False
    fragments: bool | None = None
    meetings: Path | None = None

    def said(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields as they are written down, a graph as the list of its edges."""
        own = {name: edges_of(value) if isinstance(value, nx.Graph) else value for name, value in fields.items()}
        return super().said(own)
