"""Runs many small configurations in the processes that torchrun started: ``matrix.py FOLDER WORLD``.

Starting a process costs far more than a run, so the whole matrix shares one world.
"""

import sys
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from stalegrid.config import Settings
from stalegrid.plans.task import Task
from stalegrid.runs import execute
from stalegrid.studies.loops import OWN
from tests.cases import OPTIMIZERS, Net, build, changed, make_settings, make_task

SIDES = (1, 2, 3)
VIEWS = ("stashed", "current")
MIXINGS = ("combine-while-adapt", "adapt-then-combine")
RULES: dict[str, dict[int, dict[str, Any]]] = {
    "push-sum": {2: {"period": 2}, 3: {"topology": "0>1,1>2,2>0,0>2"}},
    "exact-diffusion": {},
    "gradient-tracking": {2: {"period": 2}},
}
"""Mixings that do more than average, and what else is set, by S."""
PERIODS = (1, 2)
LAGS = (0, 1, 2)
LATE: dict[str, dict[str, Any]] = {
    "delta": {"lag_rule": "delta", "period": 2, "lag": 1, "momentum": True},
    "ema": {"lag_rule": "ema", "sparse": 0.3, "lag": 2, "mixing": "adapt-then-combine"},
}
LATELY = tuple(LATE)
CORRECTIONS = (
    ["error-feedback=0.5"],
    ["stability-rate"],
    ["error-feedback-by-staleness=0.25", "stability-rate", "error-feedback"],
)
TYPES = {2: [(2, "float64"), (4, "float32")], 3: [(3, "float32")]}
"""K, and the type in which methods that have a plain loop of their own are run by turns, by world."""


def configurations(world: int) -> dict[str, Settings]:
    """Return configurations whose units a world of so many processes can share.

    Of two grids of six units it has the one in which processes do not have a group each.  Grids as large have each
    second configuration that is not about averaging: what one leaves out another has.
    """
    found: dict[str, Settings] = {}
    for s, k in product(SIDES, SIDES):
        if (s * k) % world == 0 and (s, k) != (world, 5 - world):
            found |= averaging(s, k) if s > 1 else {}
            found |= dict(islice(others(s, k).items(), (s + k) % 2, None, 2)) if s * k > 4 else others(s, k)
    for i, method in enumerate(OWN):
        k, dtype = TYPES[world][i % len(TYPES[world])]
        found[f"1x{k}-{method}-{dtype}"] = make_settings(1, k, method=method, dtype=dtype)
    return found


def others(s: int, k: int) -> dict[str, Settings]:
    """Return what a grid is run with but for averaging."""
    found: dict[str, Settings] = {}
    if s > 1:
        found[f"{s}x{k}-noloco"] = make_settings(s, k, mixing="noloco", period=2)
        found[f"{s}x{k}-random-pairs"] = make_settings(s, k, mixing=MIXINGS[0], topology="random-pairs")
        found |= {f"{s}x{k}-{rule}": make_settings(s, k, mixing=rule, **RULES[rule].get(s, {})) for rule in RULES}
    else:
        found |= {f"{s}x{k}-{view}": make_settings(s, k, view=view) for view in VIEWS}
    streaming = {"mixing": "outer,keep=0.5", "period": 3, "lag": 1, "fragments": True}
    found[f"{s}x{k}-outer"] = make_settings(s, k, mixing="outer", period=2)
    found[f"{s}x{k}-streaming"] = make_settings(s, k, **streaming)
    if k > 1:
        found[f"{s}x{k}-gpipe"] = make_settings(s, k, method="gpipe", micro_batches=2)
        found[f"{s}x{k}-1f1b"] = make_settings(s, k, method="1f1b", micro_batches=2)
        found[f"{s}x{k}-slack"] = make_settings(s, k, staleness=[3 * (k - 1 - j) + 1 for j in range(k)])
        found[f"{s}x{k}-float64"] = make_settings(s, k, dtype="float64")
        found[f"{s}x{k}-bf16"] = make_settings(s, k, precision="bf16")
        found[f"{s}x{k}-channels-last"] = make_settings(s, k, channels_last=True)
        found[f"{s}x{k}-sum"] = make_settings(s, k, method="1f1b", micro_batches=2, reduction="sum")
    elif s > 1:
        found[f"{s}x{k}-data-parallel"] = make_settings(s, k, method="data-parallel")
        found[f"{s}x{k}-one-peer"] = make_settings(s, k, topology="one-peer-exponential", momentum=True)
    if s > 1:
        name = LATELY[(s + k) % len(LATELY)]
        found[f"{s}x{k}-{name}"] = make_settings(s, k, **LATE[name])
    for i, corrections in enumerate(CORRECTIONS):
        dtype = ("float32", "float64")[(s + k + i) % 2]
        changes = {"corrections": corrections, "dtype": dtype, "lag": s - 1}
        found[f"{s}x{k}-{'-'.join(corrections)}"] = make_settings(s, k, **changes)
    codecs = {"activation": "int8,feedback", "gradient": "topk=0.2,feedback"} if k > 1 else {}
    if s > 1:
        found[f"{s}x{k}-coded"] = make_settings(s, k, parameters="int8,feedback", lag=1, **codecs)
        found[f"{s}x{k}-choco"] = make_settings(s, k, parameters="topk=0.1", mixing="choco,gamma=0.4", **codecs)
    elif k > 1:
        found[f"{s}x{k}-coded"] = make_settings(s, k, **codecs)
    return found


def averaging(s: int, k: int) -> dict[str, Settings]:
    """Return ways to average on a grid, a sixth of all: each choice is on each grid, and any two meet on some."""
    ways = list(product(*map(enumerate, (VIEWS, MIXINGS, PERIODS, LAGS))))
    found = {}
    for (v, view), (m, mixing), (p, period), (n, lag) in ways:
        if (v + 2 * m + 3 * p + n + s + k) % 6 == 0:
            changes = {"view": view, "mixing": mixing, "period": period, "lag": lag}
            found[f"{s}x{k}-{view}-{mixing}-{period}-{lag}"] = make_settings(s, k, **changes)
    return found


def task_of(settings: Settings, model: nn.Module | None = None) -> Task:
    """Return the small task with the optimizer that the method asks for."""
    own = OPTIMIZERS.get(str(settings.method.name))
    changes: dict[str, Any] = {} if own is None else {"optimizer": own}
    return make_task(**changes) if model is None else make_task(model=model, **changes)


def main(folder: Path, world: int) -> None:
    """Run them all, keeping every unit's numbers."""
    dist.init_process_group("gloo")
    # Every process has a model of its own, as a user's script without a seed would: the first one's must be taken.
    model = build(Net) if dist.get_rank() == 0 else Net()
    for name, settings in configurations(world).items():
        execute(task_of(settings, model), changed(settings, out=folder / name), quiet=True, keep_units=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
