"""What each stage has of a model's time and parameters, and a warning where one has far more than the others.

Does not know: how cuts are chosen, groups, engines.
"""

import itertools
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stalegrid.partition.chain import Chain

FAIR = 2.0
"""Times its fair share of the time from which on a stage is warned of."""

SLIGHT = 0.005
"""Seconds of a batch below which nobody is warned: shares of so little are chance, and messages take longer."""


@dataclass(frozen=True)
class Share:
    """What one stage has of a model, each between 0 and 1.

    Args:
        time: of forward and backward, as it was measured.
        parameters: of the elements that are trained.
    """

    time: float
    parameters: float


def shares_of(chain: Chain, cuts: Sequence[int], seconds: Sequence[float]) -> tuple[Share, ...]:
    """Return what each stage has.

    Args:
        chain: a captured model.
        cuts: where it is cut.
        seconds: of each of its operations.
    """
    sizes = {name: p.numel() for name, p in chain.model.named_parameters() if p.requires_grad}
    spans = list(itertools.pairwise([0, *cuts, len(chain.nodes)]))
    times = [sum(seconds[start:stop]) for start, stop in spans]
    owned = [sum(sizes.get(name, 0) for name in chain.owned(start, stop)) for start, stop in spans]
    return tuple(Share(t / (sum(times) or 1.0), n / (sum(owned) or 1)) for t, n in zip(times, owned, strict=True))


def warn_unfair(shares: Sequence[Share], seconds: float, whole: Collection[str]) -> None:
    """Warn of a stage that takes far longer than its share, and all others wait for.

    Args:
        shares: of each stage.
        seconds: of a batch, in all stages.
        whole: paths of modules that could not be cut.
    """
    slowest = max(range(len(shares)), key=lambda k: shares[k].time)
    if seconds < SLIGHT or shares[slowest].time * len(shares) <= FAIR:
        return
    kept = f" (kept in one piece: {', '.join(sorted(whole))})" if whole else ""
    warnings.warn(
        f"stage {slowest} takes {shares[slowest].time:.0%} of the time, of {len(shares)} stages{kept}, and all others "
        "wait for it; take fewer stages, or cut elsewhere",
        stacklevel=2,
    )
