"""decent-dp, consensus averaging on a ring: ``decentralized WORKLOAD BATCH UPDATES``, BATCH of all processes together.

Run under torchrun; prints seconds an update.
"""

import sys

import torch
from decent_dp.ddp import DecentralizedDataParallel
from decent_dp.utils import initialize_dist
from torch import Tensor, nn

from benchmarks.peers.start import leave, seconds_per_update, tell
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer


def _optimizer(named: list[tuple[str, Tensor]]) -> torch.optim.Optimizer:
    return optimizer()([nn.Parameter(p) if not isinstance(p, nn.Parameter) else p for _, p in named])


def main(name: str, batch: int, updates: int) -> None:
    """Train and print."""
    rank, size = initialize_dist()
    torch.manual_seed(0)
    model = DecentralizedDataParallel(WORKLOADS[name].model(), optim_fn=_optimizer, topology="ring")
    each = batch // size
    data = WORKLOADS[name].samples(BATCHES * batch)
    loss = nn.CrossEntropyLoss()

    def update(n: int) -> None:
        first = n % BATCHES * batch + rank * each
        model.zero_grad()
        loss(model(data.inputs[first : first + each]), data.targets[first : first + each]).backward()

    seconds = seconds_per_update(update, updates)
    if rank == 0:
        tell({"seconds": seconds})
    leave()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
