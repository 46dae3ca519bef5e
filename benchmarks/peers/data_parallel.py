"""PyTorch's DistributedDataParallel: ``data_parallel WORKLOAD BATCH UPDATES [HOOK]``, BATCH of all processes together.

With the hook ``half``, gradients travel in float16 (PyTorch's hook for bfloat16 wants NCCL); with ``power`` as products
of matrices of rank RANK, once BEGUN updates are made (PowerSGD).
Run under torchrun; prints seconds an update and the bytes that all hosts have sent for one.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.peers.start import bytes_sent, everybody, leave, seconds_per_update, tell
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer

RANK, BEGUN = 4, 4
"""Of PowerSGD: its rank, a user's choice, and when it begins; left alone, that is after 1,000 updates."""

WHOLE = 1024
"""Megabytes of a bucket into which any model here fits."""


def parallel(model: nn.Module, hook: str = "") -> DistributedDataParallel:
    """Return a model whose gradients are averaged over all processes.

    Args:
        model: with the same weights everywhere.
        hook: ``half`` or ``power``, none if empty.
    """
    # PowerSGD waits in a thread of Gloo for another one, and there are two: with a second bucket under way it hangs.
    bucket = WHOLE if hook == "power" else None
    # As its documentation advises where the graph never changes: gradients lie in the buckets that are summed.
    made = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True, bucket_cap_mb=bucket)
    if hook == "half":
        made.register_comm_hook(None, fp16_compress_hook)
    elif hook == "power":
        state = PowerSGDState(None, matrix_approximation_rank=RANK, start_powerSGD_iter=BEGUN)
        made.register_comm_hook(state, powerSGD_hook)
    return made


def main(name: str, batch: int, updates: int, hook: str = "") -> None:
    """Train and print."""
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = parallel(WORKLOADS[name].model(), hook)
    each = batch // size
    data = WORKLOADS[name].samples(BATCHES * batch)
    step, loss = optimizer()(list(model.parameters())), nn.CrossEntropyLoss()

    def update(n: int) -> None:
        first = n % BATCHES * batch + rank * each
        step.zero_grad()
        loss(model(data.inputs[first : first + each]), data.targets[first : first + each]).backward()
        step.step()

    before = bytes_sent()
    seconds = seconds_per_update(update, updates)
    sent = everybody(bytes_sent() - before) / updates
    if rank == 0:
        tell({"seconds": seconds, "bytes": sent})
    leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
