"""What a copy of a model would part: functions and tensors that look at the model by identity, or by their memory.

Does not know: what copies are for.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stalegrid import spectral
from stalegrid.copies import hooks_of, tensors_of
from stalegrid.errors import ConfigError
from stalegrid.reaching import reached


def check_hooks(model: nn.Module) -> None:
    """Refuse hooks on gradients that look at the model, which would be the user's and not the one that is trained.

    Raises:
        ConfigError: a hook holds a module, parameter or buffer of the model.
    """
    for name, hooks in hooks_of(model).items():
        for hook in [*hooks[0], *hooks[1]]:
            if (read := _read(hook, model)) is not None:
                raise ConfigError(
                    f"a hook on a gradient reads the model (hook of: {name}, reads: {read}), but copies of the model "
                    "are trained; write it as a stalegrid.Correction"
                )


def check_readers(model: nn.Module, **functions: Callable[..., Any] | None) -> None:
    """Refuse functions beside the model that look at it: they would see the user's, which is not trained.

    Args:
        model: the user's own.
        functions: by what they are; None where there is none.

    Raises:
        ConfigError: one holds a module, parameter or buffer of the model.
    """
    for name, function in functions.items():
        if (read := _read(function, model)) is not None:
            raise ConfigError(
                f"the {name} reads the model (reads: {read}), but copies of the model are trained; return what the "
                "loss needs as a further output of the model, all of which the loss is called with, and make the "
                f"{name} without the model"
            )


def _read(function: Any, model: nn.Module) -> str | None:
    """Return what of a model a function reaches first, by name."""
    owned: dict[int, str] = {id(tensor): name for name, tensor in tensors_of(model).items()}
    owned |= {id(module): name or type(model).__name__ for name, module in model.named_modules()}
    return next((owned[id(value)] for value in reached(function) if id(value) in owned), None)


def check_memory(model: nn.Module) -> None:
    """Refuse tensors that lie in each other's memory: a change of one changes the other, but not in copies.

    Raises:
        ConfigError: parameters, buffers or attributes do; one tensor under two names is fine.
    """
    tensors = {**tensors_of(model), **_attributes(model)}
    lying = {name: t for name, t in tensors.items() if t.layout == torch.strided and not is_lazy(t) and t.numel()}
    spans = sorted((t.device.type, t.data_ptr(), t.data_ptr() + _extent(t), name) for name, t in lying.items())
    for (device, _, end, one), (other_device, start, _, other) in pairwise(spans):
        if device == other_device and start < end:
            raise ConfigError(
                f"two tensors of the model share memory (names: {one}, {other}), which copies of them would not; give "
                "each its own, give one tensor two names, or take the one from the other in the forward"
            )


def _attributes(model: nn.Module) -> dict[str, Tensor]:
    """Return tensors that modules keep as plain attributes, alone or in a list, each once."""
    seen = {id(tensor) for tensor in tensors_of(model).values()}
    found: dict[str, Tensor] = {}
    for path, part in model.named_modules():
        computed = spectral.computed(part)  # anew in every forward
        for name, value in vars(part).items():
            for element in value if isinstance(value, list | tuple) else [value]:
                if isinstance(element, Tensor) and id(element) not in seen and name not in computed:
                    seen.add(id(element))
                    found[f"{path}.{name}" if path else name] = element
    return found


def _extent(tensor: Tensor) -> int:
    """Return the bytes from a tensor's first element to the end of its last."""
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (steps + 1) * tensor.element_size()
