"""What a run is made of beside its settings, as texts that can be held against those of another time.

Does not know: where they are written, grids, engines.

Parameters that are trained are not looked at: a run that goes on has them from elsewhere.  What functions compute
cannot be seen, and is not looked at either.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stalegrid.data import bytes_of
from stalegrid.objects import remembered
from stalegrid.plans.task import Task, fingerprint
from stalegrid.stages import parts_of, state_of_scheduler


def origin_of(task: Task) -> dict[str, Any]:
    """Return what a task is made of, by kind and then by name.

    Args:
        task: what is trained.

    Returns:
        Plain values: the model's layers and the shapes and types of their tensors; checksums of its buffers and of the
        parameters that are not trained; the data; the loss; the optimizer and the schedule as they begin; metrics.

    Raises:
        ConfigError: what the loss or a schedule remembers cannot be said.
    """
    return {
        "layers": _layers(task.model),
        "frozen values": _frozen(task),
        "data": {"samples": fingerprint(task), "augment": _text(task.augment)},
        "losses": {"loss": _function(task.loss)},
        "optimizers": _optimizers(task.fresh()),
        "metrics": {"names": sorted(task.metrics)},
    }


def _layers(model: nn.Module) -> dict[str, str]:
    kinds = {
        path or "model": f"{type(part).__qualname__} {_text(_plain(part))}" for path, part in model.named_modules()
    }
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return kinds | {name: _shape(tensor) for name, tensor in tensors.items()}


def _plain(part: nn.Module) -> dict[str, Any]:
    """Return what a layer was made with, such as its stride."""
    blank = vars(nn.Module())
    return {name: value for name, value in vars(part).items() if name not in blank and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _shape(tensor: Tensor) -> str:
    if is_lazy(tensor):
        return "without a shape yet"
    trained = "" if not isinstance(tensor, nn.Parameter) or tensor.requires_grad else ", not trained"
    return f"{tensor.dtype} {list(tensor.shape)}{trained}"


def _frozen(task: Task) -> dict[str, str]:
    fixed = {name: p for name, p in task.model.named_parameters() if not p.requires_grad}
    found = {**fixed, **dict(task.model.named_buffers())}.items()
    # One by one: a model without memory may have more of them than there is room for.
    return {name: _digest(task.source.value(name) if task.source and t.is_meta else t) for name, t in found}


def _optimizers(task: Task) -> dict[str, str]:
    optimizer = task.optimizer_of((n, p) for n, p in task.model.named_parameters() if p.requires_grad)
    kinds = ", ".join(type(part).__qualname__ for part in parts_of(optimizer))
    groups = [
        {k: v for k, v in group.items() if k not in ("params", "param_names")} for group in optimizer.param_groups
    ]
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    found = {"optimizer": kinds, "parameters": _text(sizes)}
    found |= {f"group {i}": _text(group) for i, group in enumerate(groups)}
    schedule = task.scheduler_of(optimizer)
    if schedule is not None:
        found["schedule"] = f"{type(schedule).__qualname__} {_text(state_of_scheduler(schedule))}"
    return found


def _function(value: Any) -> str:
    if isinstance(value, partial):
        return _text([_function(value.func), value.args, value.keywords])
    if hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    return f"{type(value).__qualname__} {_text(remembered(value))}"


def _text(value: Any) -> str:
    """Write a value so that it is written alike whenever it is the same."""
    if isinstance(value, Tensor):
        return _digest(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_text, value))) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    plain = value is None or isinstance(value, bool | int | float | str)
    return repr(value) if plain else getattr(value, "__qualname__", type(value).__qualname__)


def _digest(tensor: Tensor) -> str:
    if is_lazy(tensor):
        return "without a shape yet"
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor
    return hashlib.blake2b(f"{_shape(tensor)} ".encode() + bytes_of(dense), digest_size=8).hexdigest()
