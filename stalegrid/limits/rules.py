"""What an optimizer, corrections, micro-batches and a mixing do to a recursion, where that is known.

Does not know: models, curvature, views.

What is not known is said, with the reason; no number is made up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from stalegrid.consensus import NONE, AdaptThenCombine, CombineWhileAdapt, has_name
from stalegrid.plans import Plan
from stalegrid.stability import Momentum, Rounds
from stalegrid.stages import kinds_of, parts_of
from stalegrid.written import name_of, text_of

OWN_CURRENT, DELTA = "own-current", "delta"
"""What is made of what is late: neighbours' weights against one's own of now, or what mixing would have changed."""

MOST = 400
"""Numbers in the state of all groups, above which the limit of their mixing takes too long to find."""


@dataclass(frozen=True)
class Unknown:
    """Why a limit is not known.

    Args:
        why: as a phrase.
    """

    why: str


def steps_of(optimizer: Optimizer) -> Momentum | Unknown:
    """Return how an optimizer makes steps of gradients: SGD's momentum, of one kind for all parameters."""
    parts = parts_of(optimizer)
    # No class that inherits from it: what that does is its own.
    if any(type(part) is not torch.optim.SGD for part in parts):
        return Unknown(f"not known for this optimizer ({kinds_of(optimizer)}), which scales gradients as it goes")
    groups = [group for part in parts for group in part.param_groups if group["params"]]
    kinds = {tuple(group[name] for name in ("lr", "momentum", "dampening", "nesterov", "maximize")) for group in groups}
    if len(kinds) > 1:
        return Unknown("not known where parameters have unlike rates or momentum")
    _, momentum, dampening, nesterov, maximize = kinds.pop()
    if maximize:
        return Unknown("there is none: the optimizer climbs (maximize)")
    return Momentum(momentum=float(momentum), dampening=float(dampening), nesterov=bool(nesterov))


def decay_along(optimizer: Optimizer, direction: Mapping[Tensor, Tensor]) -> float:
    """Return the weight decay along a direction of length 1, which is of the weights of now whatever the view.

    Args:
        optimizer: of these parameters, and of others maybe.
        direction: by parameter.
    """
    groups = [group for part in parts_of(optimizer) for group in part.param_groups]
    pairs = [(float(group["weight_decay"]), p) for group in groups for p in group["params"] if p in direction]
    return sum(decay * float(direction[p].square().sum()) for decay, p in pairs)


def scale_of(plan: Plan, stage: int) -> float | Unknown:
    """Return by what the gradients of a stage near a minimum exceed those of the mean loss, weight decay apart.

    Corrections scale them, but for clipping, which leaves alone what is small; micro-batches may be added up.
    """
    scale = float(plan.schedule.micro_batches) if plan.reduction == "sum" else 1.0
    for named in plan.corrections:
        name, _, number = named.partition("=") if isinstance(named, str) else (name_of(named), "", "")
        if name == "shrink":
            scale *= float(number or 0.5) ** (plan.grid.stages - 1 - stage)
        elif name != "clip":
            return Unknown(f"not known with this correction ({name})")
    return scale


def rounds_of(plan: Plan) -> Rounds | Unknown | None:
    """Return how groups mix their parameters; None where they do not, or are one by all-reduce."""
    mixing, turns = plan.mixing, plan.turns
    if plan.grid.groups == 1 or mixing is NONE:
        return None
    if not has_name(mixing):
        return Unknown(f"not known with a mixing of your own ({text_of(mixing)})")
    if mixing.averages_gradients:
        return None  # all groups have one gradient, and stay equal
    if type(mixing) not in (CombineWhileAdapt, AdaptThenCombine):
        return Unknown(f"not known with this mixing ({mixing.name})")
    if plan.momentum:
        return Unknown("not known where momentum is mixed too")
    # What else may be said of turns is not in the map: a rule of another name, or parts of vectors.
    rule, share = turns.lag_rule, turns.sparse
    if rule not in (OWN_CURRENT, DELTA) or share != 1.0:
        return Unknown(f"not known with this lag rule ({rule}) and share of every tensor ({share:g})")
    if turns.fragments > 1:
        return Unknown("not known where stages take turns (mixing.fragments)")
    if "parameters" in plan.codecs:
        return Unknown(f"not known where parameters are coded (codec.parameters: {plan.codecs['parameters']})")
    adapt_first = type(mixing) is AdaptThenCombine
    return Rounds(turns.matrix.matrices, adapt_first, turns.period, turns.lag, rule == DELTA)


def fits(rounds: Rounds, delay: int) -> bool:
    """Return whether the limit of groups can be found in a moment."""
    return rounds.groups * (2 * (delay + 1) + rounds.lag) <= MOST
