"""How a user's factories of optimizers and schedules are called, and what they may return.

Does not know: stages, servers, what a factory makes of names.

A factory of an optimizer is given parameters, or their names too if it asks for them.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.errors import ConfigError

Named = list[tuple[str, nn.Parameter]]
"""Parameters with their names, as ``model.named_parameters()`` yields them."""

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer] | Callable[[Named], Optimizer]
"""What makes an optimizer of parameters, or of named ones."""

_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def takes_names(factory: Callable[..., Any]) -> bool:
    """Return whether the name of a factory's first argument begins with ``named``, such as ``named_parameters``."""
    # By the name alone: types are not always there, and torch's own take parameters with and without names.
    try:
        arguments = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of a class in C, which tells nobody
        return False
    first = next((one for one in arguments if one.kind in _PLACED), None)
    return first is not None and first.name.startswith("named")


def make_optimizer(factory: OptimizerFactory, named: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
    """Call a factory with parameters in the way that it asks for.

    Args:
        factory: the user's.
        named: parameters, and the names that the user knows them by.

    Raises:
        ConfigError: it fails, returns something else than an optimizer, or one whose step computes the loss itself.
    """
    if isinstance(factory, Optimizer):
        kind = type(factory).__name__
        raise ConfigError(
            f"the optimizer is made already, and each stage makes its own (optimizer: {kind}); give a function that "
            f"makes one, such as lambda parameters: torch.optim.{kind}(parameters, lr=...)"
        )
    asks, make = takes_names(factory), cast(Callable[[list[Any]], Any], factory)
    given = list(named) if asks else [p for _, p in named]
    try:
        made = make(given)
    except ConfigError:
        raise
    except Exception as problem:  # the factory is the user's: anything can be raised
        what = (
            "names and parameters; a group takes the parameters alone, since in a stage it may be empty"
            if asks
            else "parameters; it gets names too if its argument is called named_parameters"
        )
        raise ConfigError(f"the optimizer cannot be built: {problem} (its factory is given: {what})") from problem
    if not isinstance(made, Optimizer):
        raise ConfigError(
            f"the factory returns no torch optimizer (it returns: {type(made).__name__}); return one, and for several "
            "take stalegrid.by_name"
        )
    if needed := _needed(made.step):
        raise ConfigError(
            f"a step of this optimizer computes the loss itself, again and again (optimizer: {type(made).__name__}, "
            f"its step needs: {needed}), and a stage or server has one gradient an update; take one whose step needs "
            "no closure, such as SGD, AdamW or Muon"
        )
    return made


def make_scheduler(factory: Callable[[Optimizer], LRScheduler], optimizer: Optimizer) -> LRScheduler:
    """Call a factory of a schedule.

    Raises:
        ConfigError: it returns what has no step, or one that needs to know more than that there was an update.
    """
    made = factory(optimizer)
    step = getattr(made, "step", None)
    if not callable(step):
        raise ConfigError(
            f"the factory returns no torch scheduler (it returns: {type(made).__name__}); return one, and for several "
            "take torch's SequentialLR or ChainedScheduler"
        )
    if needed := _needed(step):
        raise ConfigError(
            f"a schedule is told of updates alone (scheduler: {type(made).__name__}, its step needs: {needed}): each "
            "stage or server steps its own, at its own time, and knows no loss of the whole model; take one that "
            "follows the number of updates, such as CosineAnnealingLR, after a warm-up by SequentialLR"
        )
    return made


def _needed(function: Callable[..., Any]) -> str | None:
    """Return the first argument that a function cannot be called without."""
    arguments = inspect.signature(function).parameters.values()
    return next((one.name for one in arguments if one.kind in _PLACED and one.default is one.empty), None)
