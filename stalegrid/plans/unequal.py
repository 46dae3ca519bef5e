"""Tells where a loss ignores targets, and a mean or an accuracy is another than one may think.

Does not know: stages, how gradients are averaged.

A loss that ignores some targets, or weighs them by class, averages over those that count.  Micro-batches and groups are
averaged as they have samples, whatever counts in each, so the update is another than that of a loop over whole batches.
A loss that returns a sum and what it counts is not.
"""

import warnings
from collections.abc import Sequence

from torch import Tensor, nn

from stalegrid.data import Batches, Slices, Stream
from stalegrid.errors import ConfigError
from stalegrid.objects import LossFunction, ignored_by


def tell_unequal(
    loss: LossFunction,
    batches: Batches | Stream,
    groups: int,
    test: Slices | None,
    *,
    sums: bool = False,
    adds: bool = False,
) -> None:
    """Warn of what the first update and the first slice of the test show.

    Args:
        loss: of the task; only a loss with an ``ignore_index`` leaves targets out.
        batches: of every group.
        groups: how many of them average their gradients.
        test: data to measure on; None for none.
        sums: whether the loss tells what it counts, so that every mean is that of all targets.
        adds: whether the gradients of micro-batches are added up and not averaged.

    Raises:
        ConfigError: the loss is a sum over samples, and several are averaged.
    """
    if getattr(loss, "reduction", "mean") == "sum" and not sums:
        _check_sum(groups if adds else groups * batches.micro_batches, test)
    first = batches.targets(0, 0)
    if ignored_by(loss) is None or not isinstance(first, Tensor) or first.is_floating_point():
        return
    parts = [batches.targets(s, b) for s in range(groups) for b in range(batches.micro_batches)]
    if not sums:
        _tell_means(loss, parts)
    _tell_accuracy(loss, parts[0], "training")
    if test is not None:
        _tell_accuracy(loss, test[0][1], "test")


def _check_sum(parts: int, test: Slices | None) -> None:
    if parts > 1:
        raise ConfigError(
            f"the loss is a sum over samples (reduction: sum), and an update averages over several (batches: {parts}), "
            "which is not the sum over all of them; take reduction mean and a rate as many times as large as a batch, "
            "or let it return the sum and what that counts, for the mean over all"
        )
    if test is not None:
        _tell("the loss is a sum over samples (reduction: sum), so the test loss depends on how the data is sliced")


def _tell_means(loss: LossFunction, parts: Sequence[Tensor]) -> None:
    counts = [_count(loss, targets) for targets in parts]
    if not all(counts):
        _tell(
            f"the loss ignores every target of a batch of the first update (ignore_index: {ignored_by(loss)}): its "
            "mean over none is not a number; take larger batches or fewer micro-batches"
        )
    if len({count / len(targets) for count, targets in zip(counts, parts, strict=True)}) > 1:
        _tell(
            "micro-batches and groups are averaged with equal weights, but not equally many of their targets count in "
            f"the loss (from {min(counts):g} to {max(counts):g} in the first update, weighted by class): the update is "
            "not that of the mean over all targets; for that let the loss return a sum and what it counts, (total, "
            "count), or take one micro-batch and one group"
        )


def _tell_accuracy(loss: LossFunction, targets: Tensor, what: str) -> None:
    ignored = int(targets.eq(ignored_by(loss)).sum())
    if targets.ndim == 1 and ignored:
        _tell(
            f"the {what} accuracy counts targets that the loss ignores as wrong (ignore_index: {ignored_by(loss)}, "
            f"ignored: {ignored} of the first {len(targets)}); leave these samples out of the data"
        )


def _tell(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def _count(loss: LossFunction, targets: Tensor) -> float:
    """Return the number of targets that are not ignored, or the sum of the weights of their classes.

    A target that is no class weighs nothing here: whoever computes the loss says whose it is.
    """
    kept = targets[targets != ignored_by(loss)]
    weight = loss.weight if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) else None
    if weight is None:
        return kept.numel()
    classes = kept[(kept >= 0) & (kept < len(weight))].long()
    return float(weight.detach().cpu()[classes].sum())
