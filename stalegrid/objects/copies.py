"""Copies of a model that have all that it has.

Does not know: stages, units, how a run trains.

Copying or pickling a parameter drops the hooks on its gradient, and copying it the attributes that a user set on it
(such as ``no_decay``), by which an optimizer's factory may sort.  Copying a function shares its state.
"""

import copy
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from stalegrid.errors import ConfigError
from stalegrid.objects.functions import Memo, renew
from stalegrid.objects.reaching import by_reference

Hooks = dict[str, tuple[list[Callable[..., Any]], list[Callable[..., Any]]]]
"""By parameter: what is called with its gradient, and what is called when that is accumulated."""


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def first_names(model: nn.Module) -> dict[str, str]:
    """Return for every name of a parameter or buffer the first name of the same tensor, which tied ones share."""
    first = {id(tensor): name for name, tensor in tensors_of(model).items()}
    return {name: first[id(tensor)] for name, tensor in by_every_name(model).items()}


def by_every_name(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by every name that they have, of which tied ones have several."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(model.named_buffers(remove_duplicate=False))}


def copied(model: nn.Module, memo: Memo | None = None) -> nn.Module:
    """Copy a model with all that it has; functions that it keeps or is hooked with get a state of their own.

    Args:
        model: left as it is.
        memo: what is copied already, as :func:`copy.deepcopy` has it.

    Raises:
        ConfigError: it cannot be copied.
    """
    memo = {} if memo is None else memo
    memo.update(_empty(model))
    try:
        for _, function in functions_of(model):
            renew(function, memo, _deep)  # a deep copy finds it in the memo
        own: nn.Module = copy.deepcopy(model, memo)
    except Exception as problem:  # what a model holds is the user's: anything can be raised
        held = next(_computed(model), None)
        if held is None:
            raise ConfigError(f"the model cannot be copied (model: {type(model).__name__}): {problem}") from problem
        raise ConfigError(
            f"the model holds the result of a computation, which cannot be copied (attribute: {held}); detach it, or "
            "compute it in the forward; for weight_norm take that of torch.nn.utils.parametrizations"
        ) from problem
    copies = dict(own.named_parameters(remove_duplicate=False))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        # Marks that a user set, which a copy of a parameter lacks.
        vars(copies[name]).update(vars(parameter))
    renewed = partial(renew, memo=memo, copy=_deep)
    attach(own, {n: (list(map(renewed, b)), list(map(renewed, a))) for n, (b, a) in hooks_of(model).items()})
    return own


def functions_of(model: nn.Module) -> Iterator[tuple[str, FunctionType | weakref.ref[Any]]]:
    """Yield what modules keep that a deep copy of them would share, in attributes or as hooks, each with its place."""
    for path, part in model.named_modules():
        whole = getattr(type(part), "__getstate__", None) == nn.Module.__getstate__ or is_parametrized(part)
        for name, value in vars(part).items() if whole else ():  # others, as compiled ones, say what is copied
            # First what most attributes are: a walk into each would take longer than the copy.
            if value is None or type(value) is bool or _is_empty(value) or name == "_compiled_call_impl":
                continue
            yield from ((f"{path}.{name}" if path else name, function) for function in by_reference(value))


def _empty(model: nn.Module) -> Memo:
    """Return copies of the empty containers of a model, by the id of their original.

    Every module has a dozen of them for hooks that it might have, and Python copies each as an object of any kind.
    """
    values = (value for part in model.modules() for value in vars(part).values())
    return {id(value): type(value)() for value in values if _is_empty(value)}


def _is_empty(value: object) -> bool:
    return type(value) in (dict, set, OrderedDict) and not value and not getattr(value, "__dict__", None)


def _deep(value: Any, memo: Memo) -> Any:
    """Copy what a function holds, if Python can; a module of Python or an open file is shared."""
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # anything can be raised
        return value


def _computed(model: nn.Module) -> Iterator[str]:
    """Return the names of attributes that are tensors with a history."""
    for path, part in model.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                yield f"{path}.{name}" if path else name


def cast(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Turn floating parameters and buffers into another type, in place; complex and whole numbers stay.

    Args:
        model: that is changed.
        dtype: of floating tensors; None to leave all as it is.
    """
    if dtype is None:
        return model
    # Not by Module.to, which takes complex tensors for floating ones and parts a buffer that two modules share.
    seen: dict[int, Tensor] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                # The parameter stays the object that it is, by which modules share it.
                parameter.data = parameter.data.to(dtype)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                module._buffers[name] = seen.setdefault(id(buffer), buffer.to(dtype))
    return model


def ordered(model: nn.Module, order: torch.memory_format) -> nn.Module:
    """Lay parameters out in another order in memory, in place, where they have four dimensions.

    A convolution's outputs lie as its weights do, and what follows keeps that.

    Args:
        model: that is changed.
        order: such as ``torch.channels_last``.
    """
    for parameter in model.parameters():
        if parameter.dim() == _IMAGES:
            parameter.data = parameter.data.contiguous(memory_format=order)
    return model


_IMAGES = 4
"""Dimensions of what ``channels_last`` is an order of."""


def hooks_of(model: nn.Module) -> Hooks:
    """Return the hooks on the gradients of a model's parameters."""
    found = {
        name: (list((p._backward_hooks or {}).values()), list((p._post_accumulate_grad_hooks or {}).values()))
        for name, p in model.named_parameters()
    }
    return {name: hooks for name, hooks in found.items() if any(hooks)}


def attach(model: nn.Module, hooks: Hooks) -> None:
    """Put hooks on the gradients of a model's parameters that have none yet."""
    parameters = dict(model.named_parameters())
    for name, (before, after) in hooks.items():
        for hook in before:
            parameters[name].register_hook(hook)  # type: ignore[no-untyped-call]
        for hook in after:
            parameters[name].register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
