"""Another batch like a given one, to see whether a captured model has kept anything of the one it was captured with.

Does not know: how a model is captured, what its inputs mean.
"""

import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors, copied
from stalegrid.partition.trial import CPU, check
from stalegrid.seeds import drawing


def another(model: nn.Module, inputs: Tensors, form: Form | None) -> Tensors:
    """Return other inputs that a model accepts: drawn ones, or the same samples in another order, or the same.

    Args:
        model: left as it is.
        inputs: the tensors of one batch.
        form: how the model is called with them; None for one by one.
    """
    with drawing(CPU, 0, "another"):
        candidates = tuple(map(_redrawn, inputs)), _turned(inputs)
    for candidate in candidates:
        try:
            check(copied(model), candidate, form)
        except ConfigError:  # such as lengths that are to be sorted
            continue
        return candidate
    return inputs


def unmasked(model: nn.Module, inputs: Tensors, form: Form | None) -> list[Tensors]:
    """Return the inputs with ones in every mask of zeros and ones, if there is one and the model accepts that.

    A forward may leave out a mask that hides nothing, and not do so while it is captured.

    Args:
        model: left as it is.
        inputs: the tensors of one batch.
        form: how the model is called with them; None for one by one.
    """
    masks = [bool(((x == 0) | (x == 1)).all()) and not bool(x.all()) for x in inputs]
    if not any(masks):
        return []
    full = tuple(torch.ones_like(x) if mask else x for x, mask in zip(inputs, masks, strict=True))
    try:
        check(copied(model), full, form)
    except ConfigError:
        return []
    return [full]


def _redrawn(tensor: Tensor) -> Tensor:
    """Return whole numbers from the same range; of other numbers the same in another order."""
    if not tensor.numel():
        return tensor
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool:
        return tensor.flatten()[torch.randperm(tensor.numel())].reshape(tensor.shape)
    low, high = int(tensor.min()), int(tensor.max())
    return torch.randint(low, high + 1, tensor.shape, dtype=tensor.dtype)


def _turned(inputs: Tensors) -> Tensors:
    """Return the same samples, the last one first."""
    return tuple(x.flip(0) if x.ndim else x for x in inputs)
