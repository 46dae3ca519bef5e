"""Whether an optimizer treats a parameter the same whatever else it is given together with.

Does not know: stages, servers, why parameters are given in parts.

A plain loop calls a factory once, with the user's own parameters.  Here it is called for each part of a model, with
copies.  One that sorts by identity, by place in the list or by how many there are would silently train otherwise, and
so would a schedule that has a rate for each group, if a part has other groups.
"""

import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property

import torch
from torch import nn
from torch.optim import Optimizer

from stalegrid.errors import ConfigError
from stalegrid.plans.task import Task
from stalegrid.seeds import drawing, generator
from stalegrid.stages import Joined, parts_of, takes_names

CPU = torch.device("cpu")

FOLLOWED = 256
"""Updates that a schedule is followed for, some milliseconds: most that part groups do so from the start."""

SHOWN = 3
"""Options that a message names at most."""

Options = dict[str, object]


def check_sorting(task: Task, parts: Iterable[Mapping[str, nn.Parameter]]) -> None:
    """Hold the options of every parameter in an optimizer of its part against those in one of the whole model.

    Args:
        task: what is trained; its model is the user's own.
        parts: trained parameters that get an optimizer of their own, copies, by their names in the model.

    Raises:
        ConfigError: an optimizer trains other parameters than it was given, a parameter otherwise than it would be in
            a plain loop, or parameters depending on each other; or one of several has no parameter in the model.
    """
    sorting = Sorting(task)
    for part in parts:
        sorting.check(part)


class Sorting:
    """How an optimizer of the whole model treats each parameter, against which those of parts are held one by one.

    Args:
        task: what is trained; its model is the user's own.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._whole = {name: p for name, p in task.model.named_parameters() if p.requires_grad}

    def check(self, names: Mapping[str, nn.Parameter]) -> None:
        """Hold a part against the whole; arguments and errors as for :func:`check_sorting`."""
        part = dict(self._task.original(names.items()))
        expected, found = self._expected, _options(self._task, part)
        for name in part:
            if name not in self._whole:
                _check_known(self._task, name)  # it is in no plain loop of the model either
            elif unlike := _unlike(found.get(name), expected.get(name)):
                raise ConfigError(
                    f"the optimizer's factory treats a parameter otherwise than in the whole model (parameter: {name}, "
                    f"{unlike}): it is called with copies, for each stage or server; sort by names, which it is given "
                    "with the parameters if its argument is called named_parameters, or by what copies keep, such as "
                    "a shape or a mark (parameter.is_head = True), not by identity, place or number"
                )
        self._check_coupling(part)

    @cached_property
    def _expected(self) -> dict[str, Options]:
        return _options(self._task, self._whole, idle=False)

    @cached_property
    def _steps(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """A step of the whole model, and one with other draws."""
        return _stepped(self._task, self._whole, self._whole), _stepped(self._task, self._whole, self._whole, 1)

    def _check_coupling(self, part: Mapping[str, nn.Parameter]) -> None:
        """Refuse an optimizer in whose step a parameter depends on the gradients of others, such as by their norm."""
        if not part.keys() < self._whole.keys():
            return
        (expected, drawn), found = self._steps, _stepped(self._task, self._whole, part)
        for name, value in found.items():
            if not _same(expected[name], drawn[name]):
                return  # it draws, one number after another: each part has draws of its own
            if not _same(value, expected[name]):
                raise ConfigError(
                    f"a step of the optimizer depends on all parameters that it has (parameter: {name}), such as by "
                    "the norm of all gradients, and each stage or server has only some; use the setting clip, or one "
                    "stage"
                )


def _check_known(task: Task, name: str) -> None:
    """Refuse to tell a factory a name that the user cannot know."""
    if takes_names(task.optimizer):
        raise ConfigError(
            f"a parameter has another name in its stage than in the model (parameter: {name}), so it cannot be chosen "
            "by its name; let the factory of the optimizer take parameters without names"
        )


def _unlike(here: Options | None, there: Options | None) -> str:
    """Say in what a parameter is treated otherwise; nothing where it is not."""
    if here is None or there is None:
        return "" if here is there else f"left out: {here is None}, there: {there is None}"
    names = [o for o in {**there, **here} if here.get(o) != there.get(o)]
    return "; ".join(f"{o}: {here.get(o)}, there: {there.get(o)}" for o in names[:SHOWN])


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _stepped(
    task: Task, whole: Mapping[str, nn.Parameter], part: Mapping[str, nn.Parameter], key: int = 0
) -> dict[str, torch.Tensor]:
    """Return copies of parameters after a step with gradients that are noise, each its own."""
    copies: dict[str, nn.Parameter] = {}
    for number, (name, p) in enumerate(whole.items()):
        if name in part:
            copies[name] = nn.Parameter(_few(p) if p.is_meta else p.detach().clone())
            vars(copies[name]).update(vars(p))
            noise = torch.randn(copies[name].shape, generator=generator(0, "coupling", number))
            copies[name].grad = noise.to(p.dtype).to(copies[name].device)
    with drawing(CPU, 0, "optimizer"), suppress(Exception):  # whether it can step is tried elsewhere
        optimizer = task.fresh().optimizer_of(copies.items())
        with drawing(CPU, key, "step"):
            optimizer.step()
    return {name: p.detach() for name, p in copies.items()}


def _few(parameter: nn.Parameter) -> torch.Tensor:
    """Return a few elements in the place of a parameter without content: how it depends on others shows on them."""
    return torch.full([min(size, 2) for size in parameter.shape], 0.5, dtype=parameter.dtype)


def _options(task: Task, parameters: Mapping[str, nn.Parameter], *, idle: bool = True) -> dict[str, Options]:
    """Return how a new optimizer trains each parameter.

    Args:
        task: what is trained.
        parameters: that the optimizer is for, by name.
        idle: whether one of several may have none of them.
    """
    names = {id(p): name for name, p in parameters.items()}
    own = task.fresh()
    with drawing(CPU, 0, "optimizer"):
        optimizer = own.optimizer_of(parameters.items())
        if isinstance(optimizer, Joined) and optimizer.idle and not idle:
            raise ConfigError(
                f"no parameter that is trained is chosen for an optimizer (choice: {optimizer.idle[0]}, parameters: "
                f"{', '.join(list(parameters)[:SHOWN])}, ...); correct the choice, or leave it out"
            )
        stepped = _scheduled(own, optimizer)
    found: dict[str, Options] = {}
    for part in parts_of(optimizer):
        for group in part.param_groups:
            for p in group["params"]:
                if id(p) not in names:
                    raise ConfigError(
                        "the optimizer trains other parameters than it was given; use the argument of its factory, not "
                        "the model: if it is called named_parameters, it is given pairs of name and parameter"
                    )
                found[names[id(p)]] = {"optimizer": type(part).__name__, **stepped[id(group)]}
    return found


def _scheduled(task: Task, optimizer: Optimizer) -> dict[int, Options]:
    """Return the options of each group now, and after so many steps of the schedule, by the group's identity."""
    found = {id(group): _plain(group) for group in optimizer.param_groups}
    if task.scheduler is None:
        return found
    # Whether it can be made and stepped is tried elsewhere; here no update comes before its steps.
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        scheduler = task.scheduler(optimizer)
        for updates in range(FOLLOWED):
            if updates & (updates - 1) == 0:
                for group in optimizer.param_groups:
                    found[id(group)] |= {f"{o} after {updates}": value for o, value in _plain(group).items()}
            scheduler.step()
    return found


def _plain(group: Mapping[str, object]) -> Options:
    """Return the options of a group that are values, and not what it holds."""
    single = {o: v.item() if isinstance(v, torch.Tensor) and v.numel() == 1 else v for o, v in group.items()}
    return {o: v for o, v in single.items() if isinstance(v, bool | int | float | str | tuple)}
