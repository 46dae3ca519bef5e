"""Plain PyTorch to a test accuracy: ``training FOLDER SEED``; under torchrun DistributedDataParallel.

Prints the seconds since training began, and the accuracy, of every evaluation.  Processes share the evaluation.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.cifar import BATCH, EVALUATED, UPDATES, cifar10
from benchmarks.peers.start import everybody, leave, tell
from stalegrid.data import Batches, Slices


def main(folder: Path, seed: int) -> None:
    """Train and print."""
    together = dist.is_torchelastic_launched()
    if together:
        dist.init_process_group("gloo")
    rank, size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    task = cifar10(folder, seed)
    assert task.test is not None
    assert task.scheduler is not None
    model = task.model
    if together:
        model = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True)
    data = Batches(task.data, groups=size, batch_size=BATCH // size, seed=seed, augment=task.augment)
    tests = Slices(task.test, BATCH)
    step = task.optimizer_of(task.model.named_parameters())
    rates = task.scheduler(step)
    every, found = round(EVALUATED * data.updates_per_epoch), {}
    start = time.perf_counter()
    for n in range(UPDATES):
        step.zero_grad()
        loss: Any = task.loss(model(*data.inputs(rank, n)), data.targets(rank, n))
        loss.backward()
        step.step()
        rates.step()
        if (n + 1) % every == 0 or n + 1 == UPDATES:
            correct = _correct(task.model, tests, rank, size)
            accuracy = (everybody(correct) if together else correct) / 10_000
            found[str(time.perf_counter() - start)] = accuracy
    if rank == 0:
        tell(found)
    if together:
        leave()


@torch.no_grad()
def _correct(model: nn.Module, tests: Slices, rank: int, size: int) -> int:
    """Return how many samples of this process's share are recognised."""
    model.eval()
    share = [tests[i] for i in range(rank, len(tests), size)]
    correct = sum(int((model(*inputs).argmax(1) == targets).sum()) for inputs, targets in share)
    model.train()
    return correct


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
