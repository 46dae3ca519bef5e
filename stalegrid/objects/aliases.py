"""What a copy of a model would part: functions and tensors that look at the model by identity, or by their memory.

Does not know: what copies are for.
"""

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stalegrid.errors import ConfigError
from stalegrid.objects import spectral
from stalegrid.objects.copies import functions_of, hooks_of, tensors_of
from stalegrid.objects.reaching import reached


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


def check_functions(model: nn.Module) -> None:
    """Refuse functions and weak references that modules keep, or are hooked with, and that look at the model.

    Raises:
        ConfigError: one holds a module, parameter or buffer of the model.
    """
    for place, function in functions_of(model):
        if (read := _read(function, model)) is not None:
            raise ConfigError(
                f"a function or a weak reference that the model keeps looks at it (attribute: {place}, reads: {read}), "
                "but copies of the model are trained; make a function a method of its module, and what it reads of "
                "others a registered submodule; a hook is called with its module"
            )


def check_followed(model: nn.Module) -> None:
    """Refuse functions with a state where tracing follows the forward, which would take it for a constant.

    Raises:
        ConfigError: a module that is no layer of torch keeps or is hooked with one, or two modules share one.
    """
    followed = {
        path
        for path, part in model.named_modules()
        # As torch.fx does: it keeps torch's own layers whole, but follows a Sequential.
        if not type(part).__module__.startswith("torch.nn.") or isinstance(part, nn.Sequential)
    }
    holders: dict[int, str] = {}
    for place, function in functions_of(model):
        path = place.rpartition(".")[0]
        for state in reached(function, named=False):
            if not _is_state(state) or isinstance(state, Tensor):
                continue
            if path in followed or holders.setdefault(id(state), path) != path:
                raise ConfigError(
                    f"a function that the model keeps, or is hooked with, has a state (attribute: {place}, state: "
                    f"{state!r:.60}), which a cut model would lose or part; keep it in an attribute of one module; "
                    "what is constant, make a tuple"
                )


def check_readers(model: nn.Module, **functions: Any) -> None:
    """Refuse functions beside the model that look at it: they would see the user's, which is not trained.

    Args:
        model: the user's own.
        functions: by what they are, each alone or several in a list; None where there is none.

    Raises:
        ConfigError: one holds a module, parameter or buffer of the model, or what hooks of the model fill.
    """
    for name, function in functions.items():
        if (read := _read(function, model)) is not None:
            raise ConfigError(
                f"the {name} reads the model (reads: {read}), but copies of the model are trained; return what the "
                "loss needs as a further output of the model, all of which the loss is called with, and make the "
                f"{name} without the model"
            )
        shared = next(_states(model, function), None)
        if shared is not None:
            raise ConfigError(
                f"the {name} and a hook or a function of the model share state ({type(shared).__name__}: {shared!r:.60}"
                "), which copies of them would not; return what the loss needs as a further output of the model; what "
                "is constant, make a tuple"
            )


def _read(function: Any, model: nn.Module) -> str | None:
    """Return what of a model a function reaches first, by name."""
    owned: dict[int, str] = {id(tensor): name for name, tensor in tensors_of(model).items()}
    owned |= {id(module): name or type(model).__name__ for name, module in model.named_modules()}
    return next((owned[id(value)] for value in reached(function) if id(value) in owned), None)


def _states(model: nn.Module, function: Any) -> Iterator[Any]:
    """Yield what a function shares with hooks and functions of a model, and a copy of either would have for itself."""
    keep = [part for module in model.modules() for name, part in vars(module).items() if "hooks" in name]
    keep += [one for _, one in functions_of(model)] + [list(hooks) for hooks in hooks_of(model).values()]
    for named in (False, True):  # what both know as a global stays one
        others = {id(value) for value in reached(*keep, named=named)}
        yield from (v for v in reached(function, named=not named) if id(v) in others and _is_state(v))


def _is_state(value: Any) -> bool:
    """Return whether a value may be there to be changed; settings are full, and of no tensors."""
    if isinstance(value, dict):
        return not value or any(isinstance(part, Tensor) for part in value.values())
    return isinstance(value, Tensor | list | set | deque)


def check_memory(model: nn.Module) -> None:
    """Refuse tensors that lie in each other's memory: a change of one changes the other, but not in copies.

    Raises:
        ConfigError: parameters, buffers or attributes do; one tensor under two names is fine.
    """
    tensors = {**tensors_of(model), **_attributes(model)}
    lying = {name: t for name, t in tensors.items() if t.layout == torch.strided and not is_lazy(t) and t.numel()}
    lying = {name: t for name, t in lying.items() if not t.is_meta}  # what has no memory yet shares none
    spans = sorted((t.device.type, t.data_ptr(), t.data_ptr() + _extent(t), name) for name, t in lying.items())
    # Sorted by their starts: where any two overlap, two that follow one another do.
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
