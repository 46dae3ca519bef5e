"""How much gradients of batches differ from each other, beside what single samples predict.

Does not know: staleness, groups' exchange.

With sigma_k^2 the variance of the gradient of a sample by what stage k trains (the trace of its covariance), and B the
samples of a batch,

    E ||g_k - E g_k||^2 = sigma_k^2 / B    and so    E ||g - E g||^2 = sum_k sigma_k^2 / B <= K max_k sigma_k^2 / B,

where the loss of a batch is the mean of those of its samples, which are drawn independently.  Batches of one epoch have
no sample in common, so their samples are not independent; but that ``E ||g_a - g_b||^2 / 2 = sigma_k^2 / B`` holds for
two of them all the same, with the unbiased variance over the data, and that is what an unbiased variance of batches is.
All of it is of each group's own batches, and averaged over groups.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stalegrid.diagnosis.fixed import Fixed
from stalegrid.diagnosis.spread import Spread
from stalegrid.limits import Losses


@dataclass(frozen=True)
class Noise:
    """The gradients of a model, and their noise.

    Args:
        gradient: of F, shape (n,).
        measured: of each stage, the variance of the gradient of a batch; None where there is one batch alone.
        variances: sigma_k^2; None where a sample by itself has no gradient.
        predicted: sigma_k^2 / B, likewise.
        bound: K max_k sigma_k^2 / B, likewise.
    """

    gradient: Tensor
    measured: list[float] | None
    variances: list[float] | None
    predicted: list[float] | None
    bound: float | None


def noise_of(batches: Losses, singles: Losses | None, fixed: Fixed, sizes: list[int]) -> Noise:
    """Measure the noise of gradients.

    Args:
        batches: the losses of batches, at the model.
        singles: those of samples one by one; None where they have no meaning.
        fixed: what these are.
        sizes: elements that each stage trains.
    """
    groups = len(fixed.sizes)
    each = _spreads(batches, groups, fixed.parts, sizes)
    gradient = sum((spread.mean for spread in each[1:]), each[0].mean) / groups
    measured = _mean([spread.variances() for spread in each])
    if singles is None:
        return Noise(gradient, measured, None, None, None)
    found = [spread.variances() for spread in _spreads(singles, groups, 1, sizes)]
    own = [variances for variances in found if variances is not None]
    if len(own) < groups:
        return Noise(gradient, measured, None, None, None)
    by_batch = [[value / size for value in variances] for variances, size in zip(own, fixed.sizes, strict=True)]
    bound = sum(len(variances) * max(variances) for variances in by_batch) / groups
    return Noise(gradient, measured, _mean(own), _mean(by_batch), bound)


def _spreads(losses: Losses, groups: int, parts: int, sizes: list[int]) -> list[Spread]:
    """Return how much the gradients of each group differ, each of which is the mean of so many in turn."""
    found = [Spread(sizes) for _ in range(groups)]
    for first in range(0, len(losses), parts * groups):
        for group, spread in enumerate(found):
            numbers = range(first + group, first + parts * groups, groups)
            spread.add(torch.stack([losses.gradient(number).double() for number in numbers]).mean(0))
    return found


def _mean(each: "list[list[float] | None] | list[list[float]]") -> list[float] | None:
    """Return the mean over groups, stage by stage."""
    known = [values for values in each if values is not None]
    return [sum(own) / len(own) for own in zip(*known, strict=True)] if len(known) == len(each) else None
