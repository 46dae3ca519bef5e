"""PyTorch's own pipeline: ``pipelining WORKLOAD BATCH UPDATES CUTS SCHEDULE:MICRO_BATCHES ...``.

CUTS are the children at which the later parts of the model start, separated by commas, a part a process; for schedules
of two parts a process CUTS come twice as fine.  Run under torchrun; prints seconds an update by SCHEDULE:MICRO_BATCHES.
"""

import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B

from benchmarks.peers.start import leave, seconds_per_update, tell
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer

SINGLE = {"GPipe": ScheduleGPipe, "1F1B": Schedule1F1B}
MULTIPLE = {"Interleaved1F1B": ScheduleInterleaved1F1B}


def main(name: str, batch: int, updates: int, cuts: Sequence[int], schedules: Sequence[str]) -> None:
    """Train with each schedule in turn and print."""
    dist.init_process_group("gloo")
    figures = {}
    for chosen in schedules:
        kind, _, micro_batches = chosen.partition(":")
        figures[chosen] = _measure(name, batch, updates, cuts, kind, int(micro_batches))
    if dist.get_rank() == 0:
        tell(figures)
    leave()


def _measure(name: str, batch: int, updates: int, cuts: Sequence[int], kind: str, micro_batches: int) -> float:
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    children = list(WORKLOADS[name].model().children())
    bounds = [0, *cuts, len(children)]
    parts = len(bounds) - 1
    mine = list(range(rank, parts, size))
    modules = [nn.Sequential(*children[bounds[i] : bounds[i + 1]]) for i in mine]
    stages = [PipelineStage(m, i, parts, torch.device("cpu")) for m, i in zip(modules, mine, strict=True)]
    loss = nn.CrossEntropyLoss()
    schedule = (
        SINGLE[kind](stages[0], micro_batches, loss_fn=loss)
        if kind in SINGLE
        else MULTIPLE[kind](list(stages), micro_batches, loss_fn=loss)
    )
    data = WORKLOADS[name].samples(BATCHES * batch)
    step = optimizer()([p for module in modules for p in module.parameters()])

    def update(n: int) -> None:
        part = slice(n % BATCHES * batch, (n % BATCHES + 1) * batch)
        step.zero_grad()
        if rank == 0:
            schedule.step(data.inputs[part])
        elif rank == size - 1:
            schedule.step(target=data.targets[part], losses=[])
        else:
            schedule.step()
        step.step()

    return seconds_per_update(update, updates)


if __name__ == "__main__":
    workload, samples, number, at, *wanted = sys.argv[1:]
    main(workload, int(samples), int(number), [int(cut) for cut in at.split(",")], wanted)
