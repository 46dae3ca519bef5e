"""Copies that lose nothing: of models, with what Python's own copy forgets, and of functions with their state.

Does not know: stages, units, how a run trains.

Copying or pickling a parameter drops the hooks on its gradient, and copying it the attributes that a user set on it
(such as ``no_decay``), by which an optimizer's factory may sort.  Python copies a function by reference, so that state
in its closure would be shared by all who use it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from types import CellType, FunctionType, ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stalegrid.errors import ConfigError

T = TypeVar("T")

Hooks = dict[str, tuple[list[Callable[..., Any]], list[Callable[..., Any]]]]
"""By parameter: what is called with its gradient, and what is called when that is accumulated."""


def copied(model: nn.Module) -> nn.Module:
    """Copy a model with all that it has.

    Args:
        model: left as it is.

    Raises:
        ConfigError: it cannot be copied.
    """
    try:
        own = copy.deepcopy(model)
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
        ConfigError: two parameters or buffers do; one tensor under two names is fine.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    lying = {name: t for name, t in tensors.items() if t.layout == torch.strided and not is_lazy(t) and t.numel()}
    spans = sorted((t.device.type, t.data_ptr(), t.data_ptr() + _extent(t), name) for name, t in lying.items())
    for (device, _, end, one), (other_device, start, _, other) in pairwise(spans):
        if device == other_device and start < end:
            raise ConfigError(
                f"two tensors of the model share memory (names: {one}, {other}), which copies of them would not; give "
                "each its own, or the model one tensor under two names"
            )


def _extent(tensor: Tensor) -> int:
    """Return the bytes from a tensor's first element to the end of its last."""
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (steps + 1) * tensor.element_size()


def renewed(value: T, shared: Iterable[object] = ()) -> T:
    """Copy functions, objects and modules with their state, so that whoever uses the copy leaves no trace.

    State in a module's globals is not copied, nor what Python cannot copy.

    Args:
        value: a function, an object, or a tuple of such.
        shared: what copies refer to instead of copying it, such as data.
    """
    return _renew(value, {id(one): one for one in shared})  # type: ignore[no-any-return]


def _renew(value: Any, memo: dict[int, Any]) -> Any:
    if id(value) not in memo:
        memo[id(value)] = _renew_once(value, memo)
    return memo[id(value)]


def _renew_once(value: Any, memo: dict[int, Any]) -> Any:
    if type(value) is tuple:
        return tuple(_renew(part, memo) for part in value)
    if isinstance(value, FunctionType):
        return _renew_function(value, memo)
    if type(value) is partial:
        keywords = {name: _renew(part, memo) for name, part in value.keywords.items()}
        return partial(_renew(value.func, memo), *_renew(value.args, memo), **keywords)
    try:
        return copied(value) if isinstance(value, nn.Module) else copy.deepcopy(value, memo)
    except Exception:  # what cannot be copied, such as a module or an open file, is shared
        return value


def _renew_function(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    if not function.__closure__:
        return function
    cells = tuple(CellType() for _ in function.__closure__)
    own = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)
    own.__kwdefaults__, own.__qualname__ = function.__kwdefaults__, function.__qualname__
    vars(own).update(vars(function))
    memo[id(function)] = own
    for cell, old in zip(cells, function.__closure__, strict=True):
        if (content := _held_in(old)) is not _EMPTY:
            cell.cell_contents = _renew(content, memo)
    return own


_EMPTY = object()


def _held_in(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return _EMPTY


def _held(function: Any) -> list[Any]:
    """Return what a function reads: closure, defaults, globals, bound arguments, the object that it is a method of."""
    if isinstance(function, partial):
        return [*function.args, *function.keywords.values(), *_held(function.func)]
    held = [_held_in(cell) for cell in getattr(function, "__closure__", None) or ()]
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
