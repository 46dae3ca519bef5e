"""An optimizer and a schedule that are asked for anew go on from a state, at an update.

Does not know: stages, where the state is from.

What is asked for now holds: a rate, a decay, a horizon.  What training has changed since it was made moves, such as
what some optimizers estimate and keep among their options.  A schedule is a function of the number of updates, and so
is made anew and stepped up to where it goes on.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.objects import State
from stalegrid.stages.optimizers.named import NamedGroup, NamedState, alike, load_named


def move(
    optimizer: Optimizer,
    named: Iterable[tuple[str, nn.Parameter]],
    state: NamedState,
    update: int,
    scheduled: Callable[[Optimizer], LRScheduler | None],
) -> LRScheduler | None:
    """Let an optimizer go on from a state, and make its schedule.

    Args:
        optimizer: made just now, over some or all of the parameters that the state is of.
        named: the parameters.
        state: which stays as it is.
        update: that is next.
        scheduled: makes the schedule; None for none.

    Raises:
        ConfigError: as for :func:`load_named`.
    """
    made = options_of(optimizer)
    scheduler = scheduled(optimizer)
    ruled: list[State] = [{} for _ in made] if scheduler is None else _ruled(optimizer, made, scheduler, update)

    def asked(place: int, group: NamedGroup) -> dict[str, Any]:
        moved = {k: v for k, v in group.options.items() if k not in group.made or not alike(v, group.made[k])}
        return {**moved, **ruled[place]}

    load_named(optimizer, named, state, asked)
    return scheduler


def _ruled(optimizer: Optimizer, made: Sequence[State], scheduler: LRScheduler, update: int) -> list[State]:
    """Step a schedule up to an update, and return the options of each group that are up to it."""
    ruled = [{"lr"} for _ in made]

    def note() -> None:
        # Also what comes back to where it began, such as the momentum of a cycle.
        for own, before, now in zip(ruled, made, options_of(optimizer), strict=True):
            own |= {key for key, value in now.items() if key not in before or not alike(value, before[key])}

    note()
    for _ in range(update):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the optimizer has made no step, which is as it should be
            scheduler.step()
        note()
    return [{key: now[key] for key in own} for own, now in zip(ruled, options_of(optimizer), strict=True)]


def options_of(optimizer: Optimizer) -> list[State]:
    """Return the options of each group."""
    return [{k: v for k, v in g.items() if k not in ("params", "param_names")} for g in optimizer.param_groups]
