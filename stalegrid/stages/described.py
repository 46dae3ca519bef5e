"""How the saved state of a stage reads, for whoever has no plan of its run.

Does not know: other stages, files, who reads it.
"""

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.objects import State
from stalegrid.stages.optimizers.joined import kinds_of
from stalegrid.stages.weights import Weights


def described(weights: Weights, optimizer: Optimizer, scheduler: LRScheduler | None, made: Sequence[State]) -> State:
    """Say where each tensor lies in the vector, and which parameters an optimizer's numbers stand for.

    Args:
        weights: of the stage.
        optimizer: over its parameters.
        scheduler: of the optimizer; None for none.
        made: options of its groups when it was made.

    Returns:
        ``entries``: name in the stage's module, offset, shape and stride of each; ``trained`` and ``mixed``: as
        :class:`Weights` has them; ``groups``: names of the parameters of each group of the optimizer, which it numbers
        one after another; ``optimizer`` and ``scheduler``: what they are; ``made``: as given.
    """
    names = {id(parameter): name for name, parameter in weights.named()}
    return {
        "entries": [(entry.name, entry.offset, entry.shape, entry.stride) for entry in weights.entries],
        "trained": weights.trained,
        "mixed": weights.mixed,
        "groups": [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups],
        "made": list(made),
        "optimizer": kinds_of(optimizer),
        "scheduler": None if scheduler is None else type(scheduler).__name__,
    }
