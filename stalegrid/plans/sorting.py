"""Whether an optimizer treats a parameter the same whatever else it is given together with.

Does not know: stages, servers, why parameters are given in parts.

A plain loop calls a factory once, with the user's own parameters.  Here it is called for each part of a model, with
copies.  One that sorts by identity, by place in the list or by how many there are would silently train otherwise.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress

import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.plans.task import Task
from stalegrid.seeds import drawing, generator

CPU = torch.device("cpu")


def check_sorting(task: Task, parts: Iterable[Mapping[str, nn.Parameter]]) -> None:
    """Hold the options of every parameter in an optimizer of its part against those in one of the whole model.

    Args:
        task: what is trained; its model is the user's own.
        parts: trained parameters that get an optimizer of their own, copies, by their names in the model.

    Raises:
        ConfigError: an optimizer trains other parameters than it was given, a parameter otherwise than it would be in
            a plain loop, or parameters depending on each other.
    """
    whole = {name: p for name, p in task.model.named_parameters() if p.requires_grad}
    expected = _options(task, whole)
    for part in parts:
        for name, options in _options(task, part).items():
            usual = expected.get(name, options)  # what is no parameter of the model is in no plain loop of it
            if options != usual:
                unlike = [f"{o}: {options.get(o)}, there: {usual.get(o)}" for o in usual if options.get(o) != usual[o]]
                raise ConfigError(
                    f"the optimizer's factory treats a parameter otherwise than in the whole model (parameter: {name}, "
                    f"{'; '.join(unlike)}): it is called with copies, for each stage or server; sort them by what "
                    "copies keep, such as their shape or a mark (parameter.is_head = True), not by identity, place or "
                    "number"
                )
        _check_coupling(task, whole, part)


def _check_coupling(task: Task, whole: Mapping[str, nn.Parameter], part: Mapping[str, nn.Parameter]) -> None:
    """Refuse an optimizer in whose step a parameter depends on the gradients of others, such as by their norm."""
    if not part.keys() < whole.keys():
        return
    expected, drawn, found = _stepped(task, whole, whole), _stepped(task, whole, whole, 1), _stepped(task, whole, part)
    for name, value in found.items():
        if not _same(expected[name], drawn[name]):
            return  # it draws, one number after another: each part has draws of its own
        if not _same(value, expected[name]):
            raise ConfigError(
                f"a step of the optimizer depends on all parameters that it has (parameter: {name}), such as by the "
                "norm of all gradients, and each stage or server has only some; use the setting clip, or one stage"
            )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _stepped(
    task: Task, whole: Mapping[str, nn.Parameter], part: Mapping[str, nn.Parameter], key: int = 0
) -> dict[str, torch.Tensor]:
    """Return copies of parameters after a step with gradients that are noise, each its own."""
    copies: dict[str, nn.Parameter] = {}
    for number, (name, p) in enumerate(whole.items()):
        if name in part:
            copies[name] = nn.Parameter(p.detach().clone())
            vars(copies[name]).update(vars(p))
            noise = torch.randn(p.shape, generator=generator(0, "coupling", number))
            copies[name].grad = noise.to(p.dtype).to(p.device)
    with drawing(CPU, 0, "optimizer"), suppress(Exception):  # whether it can step is tried elsewhere
        optimizer = task.fresh().optimizer(list(copies.values()))
        with drawing(CPU, key, "step"):
            optimizer.step()
    return {name: p.detach() for name, p in copies.items()}


def _options(task: Task, parameters: Mapping[str, nn.Parameter]) -> dict[str, dict[str, object]]:
    """Return how a new optimizer trains each parameter."""
    names = {id(p): name for name, p in parameters.items()}
    try:
        with drawing(CPU, 0, "optimizer"):
            optimizer = task.fresh().optimizer(list(parameters.values()))
    except Exception as problem:  # the factory is the user's: anything can be raised
        raise ConfigError(f"the optimizer cannot be built: {problem}") from problem
    found: dict[str, dict[str, object]] = {}
    for group in optimizer.param_groups:
        plain: dict[str, object] = {
            name: value for name, value in group.items() if isinstance(value, bool | int | float | str | tuple)
        }
        for p in group["params"]:
            if id(p) not in names:
                raise ConfigError(
                    "the optimizer trains other parameters than it was given; use the argument of its factory, not "
                    "model.parameters()"
                )
            found[names[id(p)]] = plain
    return found
