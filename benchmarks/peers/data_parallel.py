"""PyTorch's DistributedDataParallel: ``data_parallel WORKLOAD BATCH UPDATES [half]``, BATCH of all processes together.

With ``half``, gradients travel in float16 (PyTorch's hook for bfloat16 wants NCCL).
Run under torchrun; prints seconds an update and the bytes that all hosts have sent for one.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.peers.start import bytes_sent, everybody, leave, seconds_per_update, tell
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer


def main(name: str, batch: int, updates: int, half: bool) -> None:
    """Train and print."""
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    # As its documentation advises where the graph never changes: gradients lie in the buckets that are summed.
    model = DistributedDataParallel(WORKLOADS[name].model(), gradient_as_bucket_view=True, static_graph=True)
    if half:
        model.register_comm_hook(None, fp16_compress_hook)
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
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["half"])
