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
    return next((candidate for candidate in candidates if _accepted(model, candidate, form)), inputs)


def masked(model: nn.Module, inputs: Tensors, form: Form | None) -> list[Tensors]:
    """Return the inputs with other masks, if there are any and the model accepts that: such as hide nothing, or a bit.

    A forward may leave out a mask that hides nothing, and not do so while it is captured.

    Args:
        model: left as it is.
        inputs: the tensors of one batch.
        form: how the model is called with them; None for one by one.
    """
    candidates = tuple(map(_full, inputs)), tuple(map(_hiding, inputs))
    return [
        candidate
        for candidate in candidates
        if any(a is not b for a, b in zip(candidate, inputs, strict=True)) and _accepted(model, candidate, form)
    ]


def _accepted(model: nn.Module, inputs: Tensors, form: Form | None) -> bool:
    try:
        check(copied(model), inputs, form)
    except ConfigError:  # such as lengths that are to be sorted
        return False
    return True


def _full(tensor: Tensor) -> Tensor:
    """Return ones for zeros and ones; else the tensor itself."""
    binary = bool(((tensor == 0) | (tensor == 1)).all()) and not bool(tensor.all())
    return torch.ones_like(tensor) if binary else tensor


def _hiding(tensor: Tensor) -> Tensor:
    """Return whole numbers or truths that are all one with a last one hidden; else the tensor itself."""
    if tensor.is_floating_point() or tensor.is_complex() or tensor.ndim < 2 or tensor.shape[-1] < 2:
        return tensor
    if not bool((tensor == 1).all()):
        return tensor
    hidden = tensor.clone()
    hidden.view(-1, tensor.shape[-1])[0, -1] = 0
    return hidden


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
