"""Which method trains, and what it is told beside its name.

Does not know: how any part works.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from stalegrid.methods.method import Method, Reduction, ServerMethod
from stalegrid.stages import Maker, View
from stalegrid.written import Group


@dataclass(frozen=True, kw_only=True)
class MethodSettings(Group):
    """How gradients become updates.

    Args:
        name: published method, see ``stalegrid methods``; or PACKAGE.MODULE:NAME of one of your own.
        staleness: m_k per stage in batches, such as 4,2,0; the method's if left out; auto for the least that is about
            as fast as any, estimated from the costs, which are measured here if left out.
        within: share of the best throughput that staleness auto may miss.
        queues: p_k per stage instead of staleness: activations that may wait behind the one being taken, such as
            1,1,0 for staleness 4,2,0.
        view: weights a forward uses and a late backward sees: stashed, current, recomputed, predicted,
            predicted-twice, corrected or double-buffered, or a class of your own (PACKAGE.MODULE:CLASS); the
            method's if left out.
        corrections: in the order in which they act: inverse-staleness, pipemare-rate=UPDATES, shrink=BETA,
            stability-rate, dc-asgd=LAMBDA, dc-asgd-adaptive=LAMBDA, gap-aware, error-feedback=C,
            error-feedback-by-staleness=C (an experiment), clip=NORM, classes of your own, or none; the method's if
            left out.
        rule: what staleness does to a gradient or its rate, in place of corrections: constant, inverse,
            exponential=BETA, dc=LAMBDA or gap; the method's corrections if left out.
        clip: largest L2 norm of each stage's gradient, after all corrections.
        micro_batches: M, batches an update is made of; the method's if left out.
        reduction: mean or sum of their gradients, which nothing divides by M: for SGD a sum is M times the rate; the
            method's if left out.
    """

    NAME: ClassVar[str] = "method"
    OWN: ClassVar[str | None] = "name"

    name: str | Method | ServerMethod = "pham-ahn"
    staleness: list[int] | Literal["auto"] | None = None
    within: float = 0.02
    queues: list[int] | None = None
    view: str | type[View] | None = None
    corrections: list[str | Maker] | None = None
    rule: str | None = None
    clip: float | None = None
    micro_batches: int | None = None
    reduction: Reduction | None = None
