"""The whole state of an optimizer and of its schedule, as plain values and tensors, and back again, to the bit.

Does not know: stages, files.

torch's own ``load_state_dict`` casts what an optimizer keeps to the type of the parameter, and knows nothing of what
one keeps beside ``state`` and ``param_groups``.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.objects import State, recall, remembered
from stalegrid.stages.optimizers.joined import parts_of


def state_of_optimizer(optimizer: Optimizer) -> State:
    """Return groups, state and plain attributes of an optimizer."""
    numbers = {id(p): i for i, p in enumerate(_parameters(optimizer))}
    return {
        "groups": [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
        "state": {numbers[id(p)]: dict(entry) for p, entry in optimizer.state.items() if id(p) in numbers},
        "beside": {name: entry for name, entry in optimizer.state.items() if id(name) not in numbers},
        "rest": [_rest(part) for part in parts_of(optimizer)],
    }


def load_optimizer(optimizer: Optimizer, state: State) -> None:
    """Undo :func:`state_of_optimizer`, for one over parameters like those it was saved of, in their order."""
    for group, kept in zip(optimizer.param_groups, state["groups"], strict=True):
        group.update(kept)
    parameters = _parameters(optimizer)
    fused = {id(p) for g in optimizer.param_groups if g.get("fused") or g.get("capturable") for p in g["params"]}
    for number, entry in state["state"].items():
        parameter = parameters[number]
        optimizer.state[parameter] = _beside(parameter, entry) if id(parameter) in fused else entry
    optimizer.state.update(state.get("beside", {}))
    for part, rest in zip(parts_of(optimizer), state["rest"], strict=True):
        vars(part).update(rest)


def _beside(parameter: Tensor, entry: State) -> State:
    """Return what is kept of a parameter where it is: kernels that take all in one go want single numbers there too."""
    return {name: v.to(parameter.device) if isinstance(v, Tensor) else v for name, v in entry.items()}


def _rest(part: Optimizer) -> State:
    plain = {name: value for name, value in vars(part).items() if type(value) in (bool, int, float, str)}
    return {name: value for name, value in plain.items() if not name.startswith(("_optimizer", "_hook", "_zero"))}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def state_of_scheduler(scheduler: LRScheduler) -> State:
    """Return what a schedule says itself that it remembers, but for functions, which do not change."""
    if callable(getattr(scheduler, "state_dict", None)):
        return {name: value for name, value in scheduler.state_dict().items() if not callable(value)}
    return {"remembered": remembered(scheduler)}


def load_scheduler(scheduler: LRScheduler, state: Mapping[str, Any]) -> None:
    """Undo :func:`state_of_scheduler`."""
    if callable(getattr(scheduler, "load_state_dict", None)):
        scheduler.load_state_dict({**scheduler.state_dict(), **state})
    else:
        recall(scheduler, state["remembered"])
