"""The state of an optimizer and of its schedule by the names of parameters, whichever of them an optimizer has.

Does not know: stages, groups of units, files.

Optimizers number their parameters, and so no two that have other parameters, or the same in another order, can use the
state of each other.  By names the states of several stages are one, and any part of it can be taken out again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.errors import ConfigError
from stalegrid.objects import State
from stalegrid.stages.optimizers.joined import kinds_of, parts_of
from stalegrid.stages.optimizers.state import (
    load_optimizer,
    load_scheduler,
    state_of_optimizer,
    state_of_scheduler,
)


@dataclass(frozen=True)
class NamedGroup:
    """Parameters with the same options.

    Args:
        place: of the group in its optimizer.
        names: of its parameters.
        options: such as the rate.
        made: the same as they were when the optimizer was made, of whatever it then had.
    """

    place: int
    names: list[str]
    options: dict[str, Any]
    made: dict[str, Any]


@dataclass(frozen=True)
class NamedState:
    """What an optimizer and its schedule need to go on.

    Args:
        optimizer: the names of its classes.
        groups: in the order of their places; several have one place where stages had other options there.
        state: by the name of a parameter.
        rest: plain attributes of each optimizer that it is made of.
        number: of groups that the schedule, or the whole optimizer, has.
        scheduler: the name of its class; None for no schedule.
        schedule: what it remembers.
    """

    optimizer: str
    groups: list[NamedGroup]
    state: dict[str, dict[str, Any]]
    rest: list[State] = field(default_factory=list)
    number: int = 1
    scheduler: str | None = None
    schedule: State = field(default_factory=dict)

    def plain(self) -> State:
        """Return it as a tree of plain values and tensors."""
        return {**vars(self), "groups": [dict(vars(group)) for group in self.groups]}

    @classmethod
    def of(cls, plain: State) -> "NamedState":
        """Undo :meth:`plain`."""
        return cls(**{**plain, "groups": [NamedGroup(**group) for group in plain["groups"]]})


def by_names(
    state: State,
    names: Sequence[Sequence[str]],
    made: Sequence[Mapping[str, Any]],
    optimizer: str,
    scheduler: str | None = None,
    schedule: Any = None,
) -> NamedState:
    """Put names in the place of numbers.

    Args:
        state: of an optimizer, see :func:`state_of_optimizer`.
        names: of the parameters of each of its groups.
        made: options of each of them when it was made.
        optimizer: the names of its classes.
        scheduler: the name of the class of its schedule.
        schedule: what that remembers.
    """
    numbered = [name for group in names for name in group]
    groups = [
        NamedGroup(place, list(own), {k: v for k, v in options.items() if k != "param_names"}, dict(then))
        for place, (own, options, then) in enumerate(zip(names, state["groups"], made, strict=True))
    ]
    entries = {numbered[number]: entry for number, entry in state["state"].items()}
    return NamedState(optimizer, groups, entries, state["rest"], len(groups), scheduler, schedule or {})


def named_state(
    optimizer: Optimizer, scheduler: LRScheduler | None, named: Iterable[tuple[str, nn.Parameter]]
) -> NamedState:
    """Return the state of an optimizer and its schedule by names.

    Args:
        optimizer: over some of the parameters.
        scheduler: of the optimizer; None for none.
        named: the parameters.

    Raises:
        ConfigError: the optimizer has one that has no name.
    """
    known = {id(p): name for name, p in named}
    alien = [tuple(p.shape) for group in optimizer.param_groups for p in group["params"] if id(p) not in known]
    if alien:
        raise ConfigError(
            f"the optimizer has a parameter that is none of the model (shape: {alien[0]}); give the model that it was "
            "made for"
        )
    names = [[known[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    # What its class was given is the nearest to what nobody has noted.
    made = [part.defaults for part in parts_of(optimizer) for _ in part.param_groups]
    kind, schedule = (None, None) if scheduler is None else (type(scheduler).__name__, state_of_scheduler(scheduler))
    return by_names(state_of_optimizer(optimizer), names, made, kinds_of(optimizer), kind, schedule)


def load_named(
    optimizer: Optimizer,
    named: Iterable[tuple[str, nn.Parameter]],
    state: NamedState,
    asked: Callable[[int, NamedGroup], dict[str, Any]] = lambda place, group: dict(group.options),
) -> None:
    """Give an optimizer its part of a state.

    Args:
        optimizer: over some or all of the parameters that the state is of.
        named: the parameters.
        state: which stays as it is.
        asked: place of a group in the optimizer, group of the state -> options; those of the state if left out.

    Raises:
        ConfigError: the state is of another optimizer, lacks a parameter, or has two options where one is needed.
    """
    if kinds_of(optimizer) != state.optimizer or len(parts_of(optimizer)) != len(state.rest):
        raise ConfigError(
            f"the state is of another optimizer (of: {state.optimizer}, asked for: {kinds_of(optimizer)}); take the "
            "same one, or begin with the model alone"
        )
    known = {id(p): name for name, p in named}
    groups, entries = [], {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for place, group in enumerate(optimizer.param_groups):
        found = _group(place, [known[id(p)] for p in group["params"]], len(optimizer.param_groups), state)
        groups.append({} if found is None else asked(place, found))
    for number, parameter in enumerate(parameters):
        if (entry := state.state.get(known[id(parameter)])) is not None:
            options = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
            entries[number] = {key: _placed(value, parameter, options) for key, value in entry.items()}
    load_optimizer(optimizer, {"groups": groups, "state": entries, "rest": state.rest})


def load_schedule(scheduler: LRScheduler, optimizer: Optimizer, state: NamedState) -> None:
    """Let a schedule go on, before the state of its optimizer is loaded: a schedule sets rates when it is made.

    Args:
        scheduler: of the optimizer.
        optimizer: that it acts on.
        state: of one that had a schedule.

    Raises:
        ConfigError: it is another schedule, or has other groups.
    """
    if type(scheduler).__name__ != state.scheduler:
        raise ConfigError(
            f"the state is of another schedule (of: {state.scheduler}, asked for: {type(scheduler).__name__}); take "
            "the same one"
        )
    if len(optimizer.param_groups) != state.number:
        raise ConfigError(
            f"the schedule has a rate for each group, and there are other groups (then: {state.number}, now: "
            f"{len(optimizer.param_groups)}); let the factory of the optimizer make as many for any parameters"
        )
    load_scheduler(scheduler, state.schedule)


def _group(place: int, names: Sequence[str], number: int, state: NamedState) -> NamedGroup | None:
    if not names:
        # Nobody is trained by them, but a schedule and a report read the rate.
        usual = [group for group in state.groups if group.place == place and number == state.number]
        return usual[0] if usual else None
    found = [group for group in state.groups if not set(names).isdisjoint(group.names)]
    missing = set(names).difference(*(group.names for group in found))
    if missing:
        raise ConfigError(f"the state lacks a parameter (name: {min(missing)}); it is of another model")
    if any(not alike(group.options, found[0].options) for group in found):
        raise ConfigError(
            f"parameters that had other options are in one group now (group: {place}, parameters: "
            f"{found[0].names[0]}, {found[1].names[0]}); let the factory of the optimizer part them as it did"
        )
    return found[0]


def alike(one: Any, other: Any) -> bool:
    """Return whether two values, or trees of them, are the same."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _placed(value: Any, parameter: Tensor, options: Mapping[str, Any]) -> Any:
    """Copy a value to where its optimizer keeps it: single numbers stay on the CPU, as torch has them."""
    if not isinstance(value, Tensor):
        return value
    single = value.dim() == 0 and not (options.get("capturable") or options.get("fused"))
    return value.clone() if single else value.to(parameter.device, copy=True)
