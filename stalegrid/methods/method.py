"""What a method is: a published way to train, as a setting of the parts.

Does not know: which methods there are, how any part works.
"""

import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from stalegrid.consensus import Mixing, UsualTurns
from stalegrid.errors import ConfigError
from stalegrid.programs import Schedule
from stalegrid.stages import Maker, View

Reduction = Literal["mean", "sum"]
"""What an update makes of the gradients of its micro-batches."""


@dataclass(frozen=True, slots=True)
class Method:
    """A published way to train.

    Args:
        name: as users write it.
        citation: who published it.
        formula: staleness m_k in batches, as printed.
        schedule: (K, M) -> how far stages run ahead.
        view: weights that a late backward sees, unless the user chooses.
        mixing: what groups exchange, unless the user chooses.
        turns: when they do, unless the user chooses, one by one.
        corrections: of gradients and learning rates, unless the user chooses.
        optimizer: class in torch.optim that defines the method; None for any.
        momentum: of the optimizer, or its first beta, unless the user chooses.
        shape: S and K, unless the user chooses.
        micro_batches: M, unless the user chooses.
        reduction: of the gradients of an update's micro-batches, unless the user chooses: mean or sum.
        stale: whether the user may choose the staleness.
        max_groups: largest S; None for any.
        max_stages: largest K; None for any.

    Raises:
        ConfigError: the name cannot be that of a file.
    """

    name: str
    citation: str
    formula: str
    schedule: Callable[[int, int], Schedule]
    _: KW_ONLY
    view: str | type[View] = "stashed"
    mixing: str | Mixing | type[Mixing] = "none"
    turns: UsualTurns = UsualTurns()  # noqa: RUF009 - it is frozen
    corrections: tuple[str | Maker, ...] = ()
    optimizer: str | None = None
    momentum: float = 0.9
    shape: tuple[int, int] = (1, 4)
    micro_batches: int = 1
    reduction: Reduction = "mean"
    stale: bool = True
    max_groups: int | None = None
    max_stages: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise ConfigError(
                f"a method's name is of letters, digits, dots and dashes (name: {self.name!r}), as that of a folder; "
                "rename it"
            )


@dataclass(frozen=True, slots=True)
class ServerMethod:
    """A published way to train learners with parameter servers.

    Args:
        name: as users write it.
        citation: who published it.
        splits: n, by which the learners are divided into the gradients of an update; None for one a learner.
        corrections: of every gradient, unless the user chooses.
        synchronous: whether an update takes one gradient of each learner, all at the same version.
        free: whether the user may choose n.
    """

    name: str
    citation: str
    splits: int | None
    corrections: tuple[str | Maker, ...] = ()
    synchronous: bool = False
    free: bool = False
