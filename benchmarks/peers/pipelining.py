"""PyTorch's own pipeline: ``pipelining WORKLOAD BATCH UPDATES CUTS SCHEDULE:MICRO_BATCHES ...``.

CUTS are the children at which the later parts of the model start, separated by commas, a part a process; for schedules
of two parts a process CUTS come twice as fine.  Run under torchrun; prints seconds an update by SCHEDULE:MICRO_BATCHES.
"""

import sys
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B

from benchmarks.peers.start import leave, seconds_per_update, tell
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer
from stalegrid.objects import LossFunction

SINGLE = {"GPipe": ScheduleGPipe, "1F1B": Schedule1F1B}
MULTIPLE = {"Interleaved1F1B": ScheduleInterleaved1F1B}


class Pipeline:
    """The parts of a model that this process has, and when they compute.

    Args:
        model: a chain of layers, the same everywhere.
        cuts: children at which the later parts start.
        schedule: SCHEDULE:MICRO_BATCHES.
        loss: of outputs and targets.
    """

    def __init__(self, model: nn.Module, cuts: Sequence[int], schedule: str, loss: LossFunction) -> None:
        kind, _, micro_batches = schedule.partition(":")
        layers = list(model.children())
        bounds = [0, *cuts, len(layers)]
        parts = len(bounds) - 1
        mine = range(dist.get_rank(), parts, dist.get_world_size())
        self._parts = [(bounds[i], nn.Sequential(*layers[bounds[i] : bounds[i + 1]])) for i in mine]
        stages = [
            PipelineStage(part, i, parts, torch.device("cpu")) for i, (_, part) in zip(mine, self._parts, strict=True)
        ]
        self._schedule = (
            SINGLE[kind](stages[0], int(micro_batches), loss_fn=loss)
            if kind in SINGLE
            else MULTIPLE[kind](list(stages), int(micro_batches), loss_fn=loss)
        )

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters of this process under their names in the whole."""
        for first, part in self._parts:
            for name, parameter in part.named_parameters():
                child, _, rest = name.partition(".")
                yield f"{first + int(child)}.{rest}", parameter

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """Compute the gradients of a batch."""
        rank, size = dist.get_rank(), dist.get_world_size()
        if rank == 0:
            self._schedule.step(inputs)
        elif rank == size - 1:
            self._schedule.step(target=targets, losses=[])
        else:
            self._schedule.step()


def main(name: str, batch: int, updates: int, cuts: Sequence[int], schedules: Sequence[str]) -> None:
    """Train with each schedule in turn and print."""
    dist.init_process_group("gloo")
    figures = {chosen: _measure(name, batch, updates, cuts, chosen) for chosen in schedules}
    if dist.get_rank() == 0:
        tell(figures)
    leave()


def _measure(name: str, batch: int, updates: int, cuts: Sequence[int], schedule: str) -> float:
    torch.manual_seed(0)
    pipeline = Pipeline(WORKLOADS[name].model(), cuts, schedule, nn.CrossEntropyLoss())
    data = WORKLOADS[name].samples(BATCHES * batch)
    step = optimizer()([parameter for _, parameter in pipeline.named_parameters()])

    def update(n: int) -> None:
        part = slice(n % BATCHES * batch, (n % BATCHES + 1) * batch)
        step.zero_grad()
        pipeline.step(data.inputs[part], data.targets[part])
        step.step()

    return seconds_per_update(update, updates)


if __name__ == "__main__":
    workload, samples, number, at, *wanted = sys.argv[1:]
    main(workload, int(samples), int(number), [int(cut) for cut in at.split(",")], wanted)
