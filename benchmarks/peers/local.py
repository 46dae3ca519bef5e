"""Local SGD and DiLoCo: ``local WORKLOAD BATCH UPDATES EVERY OUTER``, BATCH of all processes together.

Each process trains alone, and every EVERY updates all learn the mean of their parameters.  With OUTER ``mean`` they go
on from it (Stich, "Local SGD converges fast and communicates little", 2019); with ``nesterov`` the way to it is the
gradient of a second optimizer, SGD with Nesterov's momentum (Douillard et al., "DiLoCo", 2023).
Run under torchrun; prints seconds an update.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.peers.start import leave, seconds_per_update, tell
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer

OUTER = {"mean": (1.0, 0.0), "nesterov": (0.7, 0.9)}
"""Rate and momentum of the second optimizer, as DiLoCo has them."""


class Agreeing:
    """Lets processes agree on parameters.

    Args:
        model: of this process, with the same weights everywhere.
        every: updates from one time to the next.
        outer: ``mean`` or ``nesterov``.
    """

    def __init__(self, model: nn.Module, every: int, outer: str) -> None:
        self._parameters = list(model.parameters())
        self._every = every
        self._agreed = nn.Parameter(parameters_to_vector(self._parameters).detach())
        rate, momentum = OUTER[outer]
        self._step = torch.optim.SGD([self._agreed], rate, momentum, nesterov=momentum > 0)

    @torch.no_grad()
    def updated(self, n: int) -> None:
        """Agree if it is time, after update n."""
        if (n + 1) % self._every:
            return
        moved = self._agreed - parameters_to_vector(self._parameters)
        dist.all_reduce(moved)
        self._agreed.grad = moved / dist.get_world_size()
        self._step.step()
        vector_to_parameters(self._agreed.clone(), self._parameters)  # they become views of what they are given


def main(name: str, batch: int, updates: int, every: int, outer: str) -> None:
    """Train and print."""
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = WORKLOADS[name].model()
    agreeing = Agreeing(model, every, outer)
    each = batch // size
    data = WORKLOADS[name].samples(BATCHES * batch)
    step, loss = optimizer()(list(model.parameters())), nn.CrossEntropyLoss()

    def update(n: int) -> None:
        first = n % BATCHES * batch + rank * each
        step.zero_grad()
        loss(model(data.inputs[first : first + each]), data.targets[first : first + each]).backward()
        step.step()
        agreeing.updated(n)

    seconds = seconds_per_update(update, updates)
    if rank == 0:
        tell({"seconds": seconds})
    leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
