"""What groups shall exchange, with whom and when.

Does not know: how any of it is done.
"""

from dataclasses import dataclass
from typing import ClassVar

from stalegrid.consensus.graphs import AnyGraph
from stalegrid.consensus.mixing import Mixing
from stalegrid.written.groups import Group


@dataclass(frozen=True, kw_only=True)
class MixingSettings(Group):
    """What groups exchange.

    Args:
        kind: none, combine-while-adapt, adapt-then-combine, all-reduce, or PACKAGE.MODULE:NAME of your own; the
            method's if left out.
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
