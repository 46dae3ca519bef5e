"""One unit by itself: a small module, its optimizer and a schedule, and updates in a unit's order."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, stale
from stalegrid.seeds import drawing
from stalegrid.stages.site import Site
from stalegrid.stages.views.named import View

torch.set_num_threads(1)

MOMENTUM = partial(SGD, lr=0.125, momentum=0.9)
DRAWING = partial(drawing, torch.device("cpu"), 0, "forward")
"""batch -> the context in which a forward draws."""


def noise(*shape: int, key: int = 0) -> Tensor:
    """Return normal numbers, the same for the same key."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(key))


def linear() -> nn.Module:
    """Return a layer of a weight and a bias, the same every time; there is padding between the two."""
    with drawing(torch.device("cpu"), 0, "linear"):
        return nn.Linear(3, 2)


def make_site(
    module: nn.Module | None = None,
    *,
    staleness: Sequence[int] = (2, 0),
    stage: int = 0,
    micro_batches: int = 1,
    schedule: Schedule | None = None,
    optimizer: Callable[[list[nn.Parameter]], Optimizer] = MOMENTUM,
    updates: int = 8,
) -> Site:
    """Return where a view or a correction acts, of a module of one's own."""
    schedule = stale(staleness, micro_batches) if schedule is None else schedule
    program = Program(Grid(1, schedule.stages), schedule, updates)
    return Site.build(Unit(0, stage), program, linear() if module is None else module, optimizer)


def parameters(site: Site) -> Tensor:
    """Return a copy of the parameters of now, shape (trained,)."""
    return site.weights.flat[: site.weights.trained].clone()


def give_gradients(site: Site, key: int) -> list[Tensor]:
    """Give every trainable parameter a gradient that depends on the key alone; return copies of them."""
    made = []
    for i, p in enumerate(site.weights.trainable()):
        p.grad = noise(*p.shape, key=1000 * i + key)
        made.append(p.grad.clone())
    return made


def step(site: Site, view: View | None = None, key: int | None = None) -> None:
    """Update the weights once, as a unit does."""
    give_gradients(site, site.weights.version if key is None else key)
    if view is not None:
        view.overwriting()
    site.versions.overwriting()
    site.optimizer.step()
    site.weights.version += 1
