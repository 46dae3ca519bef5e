"""What a loss must give: one number that depends on what is trained.

Does not know: models, data, who asks.
"""

from torch import Tensor


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
