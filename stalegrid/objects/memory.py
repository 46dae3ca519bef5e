"""What an object remembers from one call to the next, found in its attributes, and given back to another one like it.

Does not know: whose objects they are, files.

For what users write without a thought of saving it.  An object that has ``state_dict`` and ``load_state_dict`` says
itself what it remembers.  Nothing is left out in silence: an attribute that is neither plain nor made of what was given
is an error.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stalegrid.errors import ConfigError

PARAMETER = "parameter"
"""The first half of a pair that stands for a parameter, whose number is the second."""

_SINGLE = (type(None), bool, int, float, str)
_LISTS = (list, tuple, set, frozenset, deque)
_MAPS = (dict, Counter, OrderedDict)
_CODE = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)
_GIVEN = (nn.Module, Optimizer, torch.dtype, torch.device, *_CODE)
"""What is there without being remembered: made by whoever makes the object, saved elsewhere, or without a state."""


def remembered(thing: Any, parameters: Sequence[Tensor] = ()) -> dict[str, Any]:
    """Return what an object remembers, as a tree of plain values and tensors.

    Args:
        thing: any object.
        parameters: of the model, by which it may have sorted something.

    Raises:
        ConfigError: an attribute holds what cannot be saved.
    """
    if isinstance(thing, nn.Module):
        return _of_module(thing, tensors=True)
    if callable(getattr(thing, "load_state_dict", None)):
        own: dict[str, Any] = thing.state_dict()
        return own
    numbers = {id(p): i for i, p in enumerate(parameters)}
    found = {}
    for name, value in _attributes(thing).items():
        if not _is_given(value):
            found[name] = _tree(value, numbers, f"{type(thing).__name__}.{name}")
    return found


def recall(thing: Any, state: Mapping[str, Any], parameters: Sequence[Tensor] = ()) -> None:
    """Let an object remember what another one like it did; see :func:`remembered`."""
    if isinstance(thing, nn.Module):
        _recall_module(thing, state)
        return
    if callable(getattr(thing, "load_state_dict", None)):
        thing.load_state_dict(state)
        return
    for name, value in state.items():
        setattr(thing, name, _untree(value, parameters))


def _attributes(thing: Any) -> dict[str, Any]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return {**getattr(thing, "__dict__", {}), **{name: getattr(thing, name) for name in slots if hasattr(thing, name)}}


def _is_given(value: Any) -> bool:
    # What the library hands out, such as a site, remembers nothing or is saved by itself.
    ours = type(value).__module__.partition(".")[0] == "stalegrid"
    if ours or isinstance(value, (*_GIVEN, nn.Parameter)):
        return True
    if isinstance(value, _LISTS) and value:
        return all(_is_given(entry) for entry in value)
    return isinstance(value, _MAPS) and bool(value) and all(_is_given(entry) for entry in value.values())


def _tree(value: Any, numbers: Mapping[int, int], path: str) -> Any:
    if isinstance(value, Tensor) and id(value) in numbers:
        return (PARAMETER, numbers[id(value)])
    if type(value) in _SINGLE or isinstance(value, Tensor):
        return value
    if isinstance(value, torch.Generator):
        return ("generator", str(value.device), value.get_state())
    if type(value) in _LISTS:
        return type(value)(_tree(entry, numbers, f"{path}[{i}]") for i, entry in enumerate(value))
    if type(value) in _MAPS:
        return type(value)({_tree(k, numbers, path): _tree(v, numbers, f"{path}[{k!r}]") for k, v in value.items()})
    raise ConfigError(
        f"what an object remembers cannot be saved ({path}: {type(value).__name__}); give its class state_dict and "
        "load_state_dict, of plain values and tensors, or run without checkpoints"
    )


def _untree(value: Any, parameters: Sequence[Tensor]) -> Any:
    if type(value) is tuple and len(value) == 2 and value[0] == PARAMETER:
        return parameters[value[1]]
    if type(value) is tuple and len(value) == 3 and value[0] == "generator":
        return _generator(value[1], value[2])
    if type(value) in _LISTS:
        return type(value)(_untree(entry, parameters) for entry in value)
    if type(value) in _MAPS:
        return type(value)({_untree(k, parameters): _untree(v, parameters) for k, v in value.items()})
    return value


def _generator(device: str, state: Tensor) -> torch.Generator:
    made = torch.Generator(device)
    made.set_state(state)
    return made


def attributes_of(module: nn.Module) -> dict[str, Any]:
    """Return the plain attributes of a module and of those within, which no state dict has; for :func:`recall`."""
    return _of_module(module, tensors=False)


def _of_module(module: nn.Module, *, tensors: bool) -> dict[str, Any]:
    blank = vars(nn.Module())
    plain = {
        path: {name: value for name, value in vars(part).items() if name not in blank and _is_plain(value)}
        for path, part in module.named_modules()
    }
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())} if tensors else {}
    return {"tensors": named, "plain": {path: found for path, found in plain.items() if found}}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.layout == torch.strided
    if type(value) in _LISTS:
        return all(_is_plain(entry) for entry in value)
    if type(value) in _MAPS:
        return all(_is_plain(entry) for pair in value.items() for entry in pair)
    return type(value) in _SINGLE


def _recall_module(module: nn.Module, state: Mapping[str, Any]) -> None:
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        for name, value in state["tensors"].items():
            named[name].copy_(value)
    parts = dict(module.named_modules())
    for path, found in state["plain"].items():
        for name, value in found.items():
            object.__setattr__(parts[path], name, value)  # plain ones: a module's own is for parameters and buffers
