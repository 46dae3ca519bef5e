"""Copies of a model that have all that it has.

Does not know: stages, units, how a run trains.

Copying or pickling a parameter drops the hooks on its gradient, and copying it the attributes that a user set on it
(such as ``no_decay``), by which an optimizer's factory may sort.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError

T = TypeVar("T")

Hooks = dict[str, tuple[list[Callable[..., Any]], list[Callable[..., Any]]]]
"""By parameter: what is called with its gradient, and what is called when that is accumulated."""


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Copy a model with all that it has.

    Args:
        model: left as it is.
        memo: what is copied already, as :func:`copy.deepcopy` has it.

    Raises:
        ConfigError: it cannot be copied.
    """
    try:
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
        vars(copies[name]).update(vars(parameter))
    attach(own, hooks_of(model))
    return own


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
    seen: dict[int, Tensor] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                module._buffers[name] = seen.setdefault(id(buffer), buffer.to(dtype))
    return model


def hooks_of(model: nn.Module) -> Hooks:
    """Return the hooks on the gradients of a model's parameters."""
    found = {
        name: (list((p._backward_hooks or {}).values()), list((p._post_accumulate_grad_hooks or {}).values()))
        for name, p in model.named_parameters()
    }
    return {name: hooks for name, hooks in found.items() if any(hooks)}


def attach(model: nn.Module, hooks: Mapping[str, tuple[list[Callable[..., Any]], list[Callable[..., Any]]]]) -> None:
    """Put hooks on the gradients of a model's parameters that have none yet."""
    parameters = dict(model.named_parameters())
    for name, (before, after) in hooks.items():
        for hook in before:
            parameters[name].register_hook(hook)  # type: ignore[no-untyped-call]
        for hook in after:
            parameters[name].register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
