"""What a loss must give: a mean, or a sum and what it counts; and the loss that a model computes itself.

Does not know: models, data, who asks.

A mean over the samples says nothing of how many there were, so means of several batches can only be averaged.  A sum
over what counts (tokens, samples, weights) and their number can be added up, and are divided once.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from stalegrid.errors import ConfigError

LossFunction = Callable[..., Tensor | tuple[Tensor, Tensor | float]]
"""(outputs, targets) -> loss averaged over the samples, shape (); or its sum, and what that counts, each shape ()."""


def own_loss(*outputs_and_targets: Any) -> Any:
    """Return the loss that a model has computed itself: its output, or what that calls ``loss``.

    Raises:
        ConfigError: there is none.
    """
    output, *more = outputs_and_targets[:-1]
    found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", output)
    if more or found is None:
        shown = f"a tuple of {1 + len(more)}" if more else type(output).__name__
        raise ConfigError(
            f"the model's output has no loss (it is: {shown}); give a loss, or let the data have what the model "
            "computes it from, such as labels"
        )
    if isinstance(found, Tensor) and found.ndim:
        raise ConfigError(
            f"the model's output is not a loss (shape: {tuple(found.shape)}), and no other is named; name one, such as "
            "loss=nn.CrossEntropyLoss()"
        )
    return found


def counted(loss: object) -> bool:
    """Return whether a loss is a sum and a count."""
    return isinstance(loss, tuple) and len(loss) == 2


def parted(loss: Any) -> tuple[Tensor, Tensor | None]:
    """Return the mean or the sum, and the count, float64, shape (); None for a mean.

    Args:
        loss: without a fault.
    """
    if not counted(loss):
        return loss, None
    total, count = loss
    # A copy: the loss may write the next batch's into the same tensor.
    return total, torch.as_tensor(count, dtype=torch.float64, device=total.device).clone()


def fault(loss: object, sums: bool | None = None) -> str | None:
    """Say what is wrong with a loss; None if nothing is.

    Args:
        loss: of a batch.
        sums: whether the losses of other batches are sums and counts; None where this is the first.
    """
    if sums is not None and counted(loss) != sums:
        return "the loss is a sum and a count for some batches, and not for others; let it always be the same"
    if not counted(loss):
        return _fault(loss)
    total, count = cast(tuple[object, Any], loss)
    if (wrong := _fault(total) or _fault_of_count(count)) is not None:
        return wrong
    # Of the first batch alone: a GPU would have to be waited for.
    if sums is None and not float(count) >= 0:
        return f"what a loss counts must be 0 or more (count: {float(count)})"
    return None


def _fault(loss: object) -> str | None:
    if not isinstance(loss, Tensor) or loss.ndim:
        shown = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        return f"the loss must be one number, averaged over the samples, or a sum and its count (it is: {shown})"
    if not loss.requires_grad:
        return (
            f"the loss has no gradient (type: {loss.dtype}), so nothing would be trained: it depends on no trained "
            "parameter, goes through an operation without a derivative (argmax), or the forward runs under no_grad"
        )
    if loss.is_complex():
        return f"the loss must be a real number (type: {loss.dtype}); take its real part"
    return None


def _fault_of_count(count: object) -> str | None:
    if isinstance(count, Tensor):
        if count.ndim or count.is_complex():
            return f"what a loss counts must be one real number (shape: {tuple(count.shape)}, type: {count.dtype})"
        if count.requires_grad:
            return "what a loss counts must not depend on what is trained, as the sum is divided by it; detach it"
    elif not isinstance(count, int | float):
        return f"what a loss counts must be a number (it is: {type(count).__name__}); return the sum and its count"
    return None
