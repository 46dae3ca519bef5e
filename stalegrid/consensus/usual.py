"""When groups mix where the user does not say: a method's word, or what is usual.

Does not know: methods, how anything is mixed.
"""

from dataclasses import dataclass, fields, replace

from stalegrid.consensus.matrices import Topology
from stalegrid.consensus.settings import LagRule, MixingSettings


@dataclass(frozen=True)
class UsualTurns:
    """When groups mix unless the user says otherwise, one by one.

    Args:
        period: H, updates from one mixing to the next.
        lag: c, updates by which the neighbours' vectors are late.
        lag_rule: what is made of what is late.
        sparse: p, share of every tensor that a round exchanges.
        fragments: whether stages take turns within a period.
        topology: who mixes with whom; the mixing's if left out.
    """

    period: int = 1
    lag: int = 0
    lag_rule: LagRule = "own-current"
    sparse: float = 1.0
    fragments: bool = False
    topology: Topology | None = None

    def of(self, asked: MixingSettings) -> "UsualTurns":
        """Return what the user has asked for, and these where that is left out."""
        given = {name: getattr(asked, name) for name in vars(self)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    @property
    def text(self) -> str:
        """What is not as it is if left out, such as ``period 4, lag 1``; nothing if all is."""
        own = [f for f in fields(self) if getattr(self, f.name) != f.default]
        return ", ".join(
            f.name if f.type is bool else f"{f.name.replace('_', ' ')} {getattr(self, f.name)}" for f in own
        )
