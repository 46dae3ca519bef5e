"""What a loss must give: one number that depends on what is trained; and the loss that a model computes itself.

Does not know: models, data, who asks.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stalegrid.errors import ConfigError


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
    return found


def fault(loss: object) -> str | None:
    """Say what is wrong with a loss; None if nothing is."""
    if not isinstance(loss, Tensor) or loss.ndim:
        shown = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        return f"the loss must be one number, averaged over the samples (it is: {shown})"
    if not loss.requires_grad:
        return (
            f"the loss has no gradient (type: {loss.dtype}), so nothing would be trained: it depends on no trained "
            "parameter, goes through an operation without a derivative (argmax), or the forward runs under no_grad"
        )
    if loss.is_complex():
        return f"the loss must be a real number (type: {loss.dtype}); take its real part"
    return None
