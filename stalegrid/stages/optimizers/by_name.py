"""Which of several optimizers trains a parameter, by its name, its shape, or both.

Does not know: stages, servers, how optimizers act as one.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.optim import Optimizer

from stalegrid.errors import ConfigError
from stalegrid.stages.optimizers.given import Named, OptimizerFactory, make_optimizer
from stalegrid.stages.optimizers.joined import Joined

Choice = str | Callable[[str, nn.Parameter], bool]
"""A pattern of names, or a function of a name and a parameter."""


def by_name(
    choices: Mapping[Choice, OptimizerFactory], *, rest: OptimizerFactory | None = None
) -> Callable[[Named], Optimizer]:
    """Return a factory of several optimizers that act as one, each for the parameters that are chosen for it.

    The groups of each are there in every stage, so that a schedule can name a rate for each, even where it has no
    parameters.  The order of groups is that of the choices; those of the rest are last.

    Args:
        choices: by a pattern of names as :mod:`fnmatch` has it (``*.bias``; a star also stands for dots), or by a
            function of a name and a parameter: what makes the optimizer of those that are chosen.
        rest: what makes the optimizer of all others; None where there are none.

    Returns:
        A factory of named parameters, for :func:`stalegrid.train` and for a loop of your own.

    Raises:
        ConfigError: the factory, when it is called: a parameter is chosen by none or by two.
    """
    if not choices:
        raise ConfigError("there is nothing to choose from (choices: none); give the factory itself as the optimizer")
    chosen = tuple(choices.items())  # a tuple and functions, which each unit gets copies of with their state

    def make(named_parameters: Named) -> Optimizer:
        shares, others = _shares([choice for choice, _ in chosen], named_parameters)
        if others and rest is None:
            raise ConfigError(
                f"no optimizer is chosen for a parameter (parameter: {others[0][0]}, choices: "
                f"{', '.join(_shown(choice) for choice, _ in chosen)}); name one for the rest"
            )
        parts = [_part(factory, share) for (_, factory), share in zip(chosen, shares, strict=True)]
        parts += [] if rest is None else [_part(rest, others)]
        return Joined(parts, [_shown(choice) for (choice, _), share in zip(chosen, shares, strict=True) if not share])

    return make


def _shares(choices: list[Choice], named: Named) -> tuple[list[Named], Named]:
    """Return the parameters that each choice takes, and those that none does."""
    shares: list[Named] = [[] for _ in choices]
    others: Named = []
    for name, parameter in named:
        takers = [i for i, choice in enumerate(choices) if _takes(choice, name, parameter)]
        if len(takers) > 1:
            raise ConfigError(
                f"two optimizers are chosen for one parameter (parameter: {name}, choices: "
                f"{', '.join(_shown(choices[i]) for i in takers)}); let all but one leave it out"
            )
        (shares[takers[0]] if takers else others).append((name, parameter))
    return shares, others


def _takes(choice: Choice, name: str, parameter: nn.Parameter) -> bool:
    return fnmatchcase(name, choice) if isinstance(choice, str) else bool(choice(name, parameter))


def _part(factory: OptimizerFactory, share: Named) -> Optimizer:
    # No optimizer begins without parameters.  Of one it has its groups, from which that one is then taken.
    stand_in = [("none", nn.Parameter(torch.zeros(1, 1)))]
    made = make_optimizer(factory, share or stand_in)
    names = {id(p): name for name, p in share}
    if not share:
        made.state.clear()
    for group in made.param_groups:
        group["params"] = [p for p in group["params"] if p is not stand_in[0][1]]
        # All with names, or torch refuses to join them.
        group["param_names"] = [names.get(id(p), "unknown") for p in group["params"]]
    return made


def _shown(choice: Choice) -> str:
    return repr(choice) if isinstance(choice, str) else getattr(choice, "__name__", type(choice).__name__)
