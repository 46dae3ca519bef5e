"""Whether an optimizer's factory gives a parameter the same options whatever it is given together with.

Does not know: stages, servers, why parameters are given in parts.

A plain loop calls a factory once, with the user's own parameters.  Here it is called for each part of a model, with
copies.  One that sorts by identity, by place in the list or by how many there are would silently train otherwise.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.seeds import drawing
from stalegrid.task import Task


def check_sorting(task: Task, parts: Iterable[Mapping[str, nn.Parameter]]) -> None:
    """Hold the options of every parameter in an optimizer of its part against those in one of the whole model.

    Args:
        task: what is trained; its model is the user's own.
        parts: trained parameters that get an optimizer of their own, copies, by their names in the model.

    Raises:
        ConfigError: an optimizer trains other parameters than it was given, or a parameter otherwise than it would be
            in a plain loop.
    """
    whole = {name: p for name, p in task.model.named_parameters() if p.requires_grad}
    expected = _options(task, whole)
    for part in parts:
        for name, options in _options(task, part).items():
            usual = expected.get(name, options)  # constants that tracing made have names of their own
            if options != usual:
                unlike = [f"{o}: {options.get(o)}, there: {usual.get(o)}" for o in usual if options.get(o) != usual[o]]
                raise ConfigError(
                    f"the optimizer's factory treats a parameter otherwise than in the whole model (parameter: {name}, "
                    f"{'; '.join(unlike)}): it is called with copies, for each stage or server; sort them by what "
                    "copies keep, such as their shape or a mark (parameter.is_head = True), not by identity, place or "
                    "number"
                )


def _options(task: Task, parameters: Mapping[str, nn.Parameter]) -> dict[str, dict[str, object]]:
    """Return how a new optimizer trains each parameter."""
    names = {id(p): name for name, p in parameters.items()}
    try:
        with drawing(torch.device("cpu"), 0, "optimizer"):
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
