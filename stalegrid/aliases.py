"""What a copy of a model would part: hooks and tensors that look at its parameters by identity, or by their memory.

Does not know: what copies are for.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stalegrid import spectral
from stalegrid.copies import hooks_of, tensors_of
from stalegrid.errors import ConfigError
from stalegrid.renewing import held_in


def check_hooks(model: nn.Module) -> None:
    """Refuse hooks on gradients that look at a parameter, which would be the user's and not the one that is trained.

    Raises:
        ConfigError: a hook's closure holds a parameter of the model.
    """
    owned = {id(p): name for name, p in model.named_parameters()}
    for name, hooks in hooks_of(model).items():
        for hook in [*hooks[0], *hooks[1]]:
            read = next((owned[id(p)] for held in _held(hook) for p in _parameters(held) if id(p) in owned), None)
            if read is not None:
                raise ConfigError(
                    f"a hook on a gradient reads a parameter of the model (hook of: {name}, parameter: {read}), but "
                    "copies of the model are trained; write it as a stalegrid.Correction"
                )


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


def _held(function: Any) -> list[Any]:
    """Return what a function reads: closure, defaults, globals, bound arguments, the object that it is a method of."""
    if isinstance(function, partial):
        return [*function.args, *function.keywords.values(), *_held(function.func)]
    held = [held_in(cell) for cell in getattr(function, "__closure__", None) or ()]
    held += getattr(function, "__defaults__", None) or ()
    held += (getattr(function, "__kwdefaults__", None) or {}).values()
    if isinstance(function, FunctionType):
        held += [function.__globals__.get(name) for name in function.__code__.co_names]
    return [*held, getattr(function, "__self__", None)]


def _parameters(value: Any, depth: int = 2) -> Iterator[nn.Parameter]:
    """Yield the parameters that a value is or holds; not those deep inside it."""
    if isinstance(value, nn.Parameter):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif depth and not isinstance(value, ModuleType | type):
        parts = value.values() if isinstance(value, dict) else getattr(value, "__dict__", {}).values()
        for part in value if isinstance(value, list | tuple | set) else list(parts):
            yield from _parameters(part, depth - 1)
