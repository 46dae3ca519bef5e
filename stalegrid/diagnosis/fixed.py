"""The samples on which all versions of a run are diagnosed: some of its first batches, and some samples one by one.

Does not know: what is measured on them.

Of each group as many batches are read as make four of all groups, two at least, so that there is a variance, and no
more than an epoch has; they are batches of one epoch, which have no sample in common.  Samples are read one by one from
the same data, group by group.  Where the loss of a batch is not the mean of losses of its samples, what a sample's
gradient is has no meaning.
"""

from dataclasses import dataclass, replace

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stalegrid.limits import Sample, read_sample
from stalegrid.plans import Plan, Task, make_batches

BATCHES = 4
"""Batches of all groups together, unless that is less than two of each."""

SAMPLES = 32
"""Samples of all groups together that are looked at one by one."""


@dataclass(frozen=True)
class Fixed:
    """What a run is diagnosed on.

    Args:
        batches: micro-batches, of which the function F of the theory is the mean loss; number b is of group b mod S.
        singles: samples one by one, likewise; None where a sample by itself has no gradient.
        parts: M, micro-batches of a batch.
        sizes: samples of the batches of each group.
        why: why there are no single samples.
    """

    batches: Sample
    singles: Sample | None
    parts: int
    sizes: tuple[int, ...]
    why: str = ""


def read_fixed(task: Task, plan: Plan, batches: int = BATCHES, samples: int = SAMPLES) -> Fixed:
    """Read what a run is diagnosed on.

    Args:
        task: what is trained.
        plan: of the run.
        batches: of all groups together, unless that is less than two of each, or more than an epoch has.
        samples: of all groups together, likewise.
    """
    groups, parts, training = plan.grid.groups, plan.schedule.micro_batches, plan.training
    sizes = training.sizes(groups)
    # The incomplete last batch of an epoch is left out: all batches of a group are of one size.
    whole = replace(training, drop_last=True)
    complete = make_batches(task, whole, groups, parts).updates_per_epoch or plan.updates_per_epoch
    each = min(max(2, -(-batches // groups)), complete)
    read = read_sample(task, whole, groups, parts, each * parts * groups)
    if why := _together(task.model, sums=plan.sums):
        return Fixed(read, None, parts, sizes, why)
    alone = min(max(2, -(-samples // groups)), complete * min(sizes))
    singles = read_sample(task, replace(whole, batch_size=1), groups, 1, alone * groups)
    return Fixed(read, singles, parts, sizes)


def _together(model: nn.Module, *, sums: bool) -> str:
    """Return why the loss of a batch is not the mean of losses of its samples; nothing where it is, or may be."""
    if any(isinstance(module, _BatchNorm) and module.training for module in model.modules()):
        return "batch normalisation makes the loss of a sample depend on its batch"
    return "the loss is a sum and a count, which need not be alike for all samples" if sums else ""
