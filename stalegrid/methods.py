"""Each published method as a setting of the parts, a few lines each.

Does not know: how any part works.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stalegrid.errors import ConfigError
from stalegrid.program import Schedule, gpipe, one_f_one_b, stale

NO_MIXING = "none"
COMBINE_WHILE_ADAPT = "combine-while-adapt"
ADAPT_THEN_COMBINE = "adapt-then-combine"
ALL_REDUCE = "all-reduce"
MIXINGS = (NO_MIXING, COMBINE_WHILE_ADAPT, ADAPT_THEN_COMBINE, ALL_REDUCE)
"""What groups exchange: nothing, parameters in one of two orders, or gradients."""


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
        shape: S and K, unless the user chooses.
        micro_batches: M, unless the user chooses.
        stale: whether the user may choose the staleness.
        max_groups: largest S; None for any.
        max_stages: largest K; None for any.
    """

    name: str
    citation: str
    formula: str
    schedule: Callable[[int, int], Schedule]
    view: str
    mixing: str
    shape: tuple[int, int]
    micro_batches: int = 1
    stale: bool = False
    max_groups: int | None = None
    max_stages: int | None = None


def _decoupled(stages: int, micro_batches: int) -> Schedule:
    return stale([2 * (stages - 1 - k) for k in range(stages)], micro_batches)


METHODS = (
    Method(
        "pham-ahn",
        "Pham and Ahn, arXiv 2509.05679",
        "2(K-1-k)",
        _decoupled,
        "stashed",
        COMBINE_WHILE_ADAPT,
        (2, 2),
        stale=True,
    ),
    Method(
        "sgd",
        "Robbins and Monro 1951; torch.optim's own loop, stage after stage",
        "0",
        gpipe,
        "stashed",
        NO_MIXING,
        (1, 1),
        max_groups=1,
    ),
    Method(
        "data-parallel",
        "synchronous data parallelism: mean gradient of all groups at every update",
        "0",
        gpipe,
        "stashed",
        ALL_REDUCE,
        (2, 1),
        max_stages=1,
    ),
    Method("gpipe", "Huang et al., GPipe, arXiv 1811.06965", "0", gpipe, "stashed", ALL_REDUCE, (1, 2), 4),
    Method(
        "1f1b",
        "Narayanan et al., PipeDream-flush, arXiv 2006.09503",
        "0",
        one_f_one_b,
        "stashed",
        ALL_REDUCE,
        (1, 2),
        4,
    ),
)


def find(name: str) -> Method:
    """Return a method by name.

    Raises:
        ConfigError: there is none of that name.
    """
    for method in METHODS:
        if method.name == name:
            return method
    raise ConfigError(f"unknown method (method: {name!r}); there are: {', '.join(m.name for m in METHODS)}")


def schedule(method: Method, stages: int, staleness: Sequence[int] | None, micro_batches: int) -> Schedule:
    """Return the method's schedule, or the user's own staleness in it.

    Args:
        method: one of ``METHODS``.
        stages: K.
        staleness: m_k per stage in batches; None for the method's.
        micro_batches: M.

    Raises:
        ConfigError: the staleness has another length than K, is negative, increases along the stages, or the
            method has none.
    """
    if micro_batches < 1:
        raise ConfigError(f"an update needs at least one micro-batch (micro-batches: {micro_batches})")
    if staleness is None:
        return method.schedule(stages, micro_batches)
    shown = ",".join(map(str, staleness))
    if not method.stale:
        raise ConfigError(
            f"{method.name} flushes at every update and has no staleness (staleness: {shown}); leave it out"
        )
    if len(staleness) != stages:
        raise ConfigError(f"staleness needs one number a stage (staleness: {shown}, stages: {stages})")
    return stale(staleness, micro_batches)
