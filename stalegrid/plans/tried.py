"""What comes of trials of all stages together: what is refused then, and what a stage holds.

Does not know: how stages are tried, what groups exchange.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from stalegrid.consensus import Mixing, Momentum, has_name
from stalegrid.errors import ConfigError
from stalegrid.methods import Method, Reduction
from stalegrid.plans.choices import refuse_sparse
from stalegrid.plans.task import Task
from stalegrid.plans.trials import Probed
from stalegrid.programs import Program
from stalegrid.stages import StageLayout, View, Weights, kinds_of, parts_of


def check_sums(mixing: Mixing, reduction: Reduction) -> None:
    """Refuse what a loss that is a sum and a count cannot be combined with.

    Args:
        mixing: of the run.
        reduction: of the gradients of micro-batches.

    Raises:
        ConfigError: it cannot be.
    """
    mixing.refuse("sums", "the loss returns a sum and a count")
    if mixing.averages_gradients and not has_name(mixing):
        raise ConfigError(
            f"the loss is a sum and a count, and a mixing of one's own knows no counts (mixing: {mixing.name}); take "
            "all-reduce, or a loss that is a mean"
        )
    if reduction == "sum":
        raise ConfigError(
            "the loss is a sum and a count, by which gradients are divided whatever batches they are of (reduction: "
            "sum); take --method.reduction mean, or a loss that is a mean"
        )


def check_whole(probed: Sequence[Probed]) -> None:
    """Refuse sparse gradients.

    Args:
        probed: what came of each stage.

    Raises:
        ConfigError: a stage has some.
    """
    for found in probed:
        refuse_sparse(found, "late gradients, corrections, all-reduce, tracking and mirrors work on whole ones")


def frozen_below(stages: Sequence[nn.Module]) -> int:
    """Return how many stages lie below the first that trains something."""
    trained = (k for k, stage in enumerate(stages) if any(p.requires_grad for p in stage.parameters()))
    return next(trained, 0)  # where nothing is trained, the trial of stage 0 says so


def check_owned_once(model: nn.Module, layouts: Sequence[StageLayout]) -> None:
    """Refuse a frozen parameter that a forward changes where two stages have it: each would change its own copy."""
    known = dict(model.named_parameters(remove_duplicate=False))
    owners: dict[int, int] = {}
    for k, layout in enumerate(layouts):
        for name in layout.names & known.keys():
            owner = owners.setdefault(id(known[name]), k)
            if owner != k:
                raise ConfigError(
                    f"two stages share a frozen parameter that a forward changes (name: {name}, stages: {owner}, {k}): "
                    "each would change its own copy; put all uses into one stage"
                )


def held_by(program: Program, stage: int, view: type[View], gap: bool, read: bool, probed: Probed) -> int:
    """Return the bytes that a stage holds for batches in flight and corrections, at most.

    Args:
        program: of the run.
        stage: its number.
        view: of late backwards.
        gap: whether it is measured how far weights move meanwhile.
        read: whether a correction reads the weights of the forward.
        probed: what came of the stage.
    """
    schedule = program.schedule
    kept, bound = view.kept(schedule, stage), schedule.bound(stage)
    copies = kept.copies
    if not view.holds:
        copies += bound if read else int(gap and bound > 0)
    copies += probed.vectors
    weights = probed.weights
    own = kept.graphs * probed.graph + kept.inputs * probed.inputs + copies * _trained_bytes(weights)
    # A version of a mirror for every version of its owner among the batches in flight, besides the newest.
    versions = schedule.in_flight(stage) - 1 if program.ties.always else bound
    return own + versions * sum(p.nbytes for p in weights.mirrored.values())


def _trained_bytes(weights: Weights) -> int:
    return weights.trained * weights.flat.itemsize


def check_kind(method: Method, optimizer: Optimizer) -> None:
    """Refuse another optimizer than the method is defined by, if it is by one."""
    if method.optimizer is None:
        return
    if not all(isinstance(own, getattr(torch.optim, method.optimizer)) for own in parts_of(optimizer)):
        raise ConfigError(
            f"{method.name} is defined by its optimizer (optimizer: {kinds_of(optimizer)}); take "
            f"torch.optim.{method.optimizer}"
        )


def check_momentum(task: Task, weights: Sequence[Weights]) -> None:
    """Refuse to mix the momentum of an optimizer that has none."""
    for stage in (w for w in weights if w.trainable()):
        Momentum(task.fresh().optimizer_of(stage.named()), stage.trainable())
