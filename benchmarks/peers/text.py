"""A decoder of text, trained by several processes: ``text FOLDER SEED UPDATES EVERY RATE OUT WAY [OPTION ...]``.

FOLDER holds the text.  Ways, with their options:

* ``data_parallel [HOOK]``: DistributedDataParallel, with ``half`` or ``power`` for gradients;
* ``local EVERY OUTER``: local SGD or DiLoCo;
* ``pipelining SCHEDULE:MICRO_BATCHES``: PyTorch's own pipeline;
* ``grid OPTIMIZER SETTINGS``: this library's, with options of :func:`stalegrid.train` in JSON, those of the mixing as
  one.

Everybody trains on the same samples at every update.  Each process keeps a copy of its parameters after every EVERY
updates, and writes them to OUT in the end: evaluation is in nobody's time.  Run under torchrun; the first process
prints the seconds of an update, without the first EVERY and the last, in which pipelines fill and drain.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import stalegrid
from benchmarks.peers.data_parallel import parallel
from benchmarks.peers.local import Agreeing
from benchmarks.peers.pipelining import Pipeline
from benchmarks.peers.start import leave, tell
from benchmarks.text import BATCH, CUTS, batches, text
from stalegrid import GridSettings, MixingSettings, OutputSettings
from stalegrid.plans.task import Task

Named = Iterable[tuple[str, nn.Parameter]]


class Kept:
    """Copies of parameters, by update.

    A run has copies of all that a factory of optimizers reaches; these share one.

    Args:
        every: updates from one copy to the next.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.states: dict[int, dict[str, Tensor]] = {}

    def __deepcopy__(self, memo: object) -> Self:
        """Return the same object."""
        return self

    def updated(self, n: int, named: Named) -> None:
        """Copy after update n, counted from 1, if it is time."""
        if n % self.every == 0:
            self.states[n] = {name: parameter.detach().clone() for name, parameter in named}


def main(
    folder: Path, seed: int, updates: int, every: int, rate: float, out: Path, way: str, options: list[str]
) -> None:
    """Train, write what was kept, and print."""
    dist.init_process_group("gloo")
    kept = Kept(every)
    if way == "grid":
        optimizer, settings = options
        asked = json.loads(settings)
        asked["mixing"] = MixingSettings(**asked.pop("mixing", {}))
        seconds = _grid(text(folder, seed, rate, optimizer), seed, updates, out, kept, asked)
    else:
        seconds = _followed(*PEERS[way](text(folder, seed, rate), seed, *options), updates, kept)
    rank = dist.get_rank()
    torch.save(kept.states, out / f"{rank}.pt")
    if rank == 0:
        first, *_, last, _ = sorted(seconds)
        tell({"seconds": (seconds[last] - seconds[first]) / (last - first)})
    leave()


def _followed(update: Callable[[int], None], named: Callable[[], Named], updates: int, kept: Kept) -> dict[int, float]:
    """Make updates; return the seconds since the first one began, by update."""
    seconds = {}
    dist.barrier()
    start = time.perf_counter()
    for n in range(1, updates + 1):
        update(n - 1)
        kept.updated(n, named())
        if n % kept.every == 0:
            seconds[n] = time.perf_counter() - start
    return seconds


def _steps(task: Task, named: Named) -> tuple[Optimizer, LRScheduler]:
    assert task.scheduler is not None
    step = task.optimizer_of(named)
    return step, task.scheduler(step)


def _data_parallel(task: Task, seed: int, hook: str = "") -> tuple[Callable[[int], None], Callable[[], Named]]:
    model, rank = parallel(task.model, hook), dist.get_rank()
    data = batches(task, seed, dist.get_world_size())
    step, rates = _steps(task, task.model.named_parameters())

    def update(n: int) -> None:
        step.zero_grad()
        loss: Any = task.loss(model(*data.inputs(rank, n)), data.targets(rank, n))
        loss.backward()
        step.step()
        rates.step()

    return update, task.model.named_parameters


def _local(task: Task, seed: int, every: str, outer: str) -> tuple[Callable[[int], None], Callable[[], Named]]:
    agreeing, rank = Agreeing(task.model, int(every), outer), dist.get_rank()
    data = batches(task, seed, dist.get_world_size())
    step, rates = _steps(task, task.model.named_parameters())

    def update(n: int) -> None:
        step.zero_grad()
        loss: Any = task.loss(task.model(*data.inputs(rank, n)), data.targets(rank, n))
        loss.backward()
        step.step()
        rates.step()
        agreeing.updated(n)

    return update, task.model.named_parameters


def _pipelining(task: Task, seed: int, schedule: str) -> tuple[Callable[[int], None], Callable[[], Named]]:
    parts = dist.get_world_size() * (2 if schedule.startswith("Interleaved") else 1)
    pipeline = Pipeline(task.model, CUTS[parts], schedule, task.loss)
    data = batches(task, seed, 1)
    step, rates = _steps(task, pipeline.named_parameters())

    def update(n: int) -> None:
        step.zero_grad()
        (inputs,) = data.inputs(0, n)
        pipeline.step(inputs, data.targets(0, n))
        step.step()
        rates.step()

    return update, pipeline.named_parameters


def _grid(task: Task, seed: int, updates: int, out: Path, kept: Kept, settings: dict[str, Any]) -> dict[int, float]:
    def noting(named: list[tuple[str, nn.Parameter]]) -> Optimizer:
        made, counted = task.optimizer_of(named), iter(range(1, updates + 1))
        made.register_step_post_hook(lambda *_: kept.updated(next(counted), named))
        return made

    stalegrid.train(
        task.model,
        task.data,
        loss=task.loss,
        optimizer=noting,
        scheduler=task.scheduler,
        updates=updates,
        seed=seed,
        grid=GridSettings(cuts=[str(cut) for cut in CUTS[settings["stages"]]]),
        batch_size=BATCH // settings["groups"],
        output=OutputSettings(folder=out / "run", log_every=kept.every, evaluate_every=0),
        quiet=True,
        **settings,
    )
    if dist.get_rank():
        return {}
    lines = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    return {line["update"]: line["seconds"] for line in lines if line["kind"] == "train"}


PEERS: dict[str, Callable[..., tuple[Callable[[int], None], Callable[[], Named]]]] = {
    "data_parallel": _data_parallel,
    "local": _local,
    "pipelining": _pipelining,
}
"""What makes an update of a number, and what names the parameters of this process."""


if __name__ == "__main__":
    place, number, many, often, speed, results, how, *more = sys.argv[1:]
    main(Path(place), int(number), int(many), int(often), float(speed), Path(results), how, more)
