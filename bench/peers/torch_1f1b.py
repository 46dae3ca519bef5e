"""PyTorch's Schedule1F1B on ResNet-20, two stages; prints samples a second.

Run under torchrun: ``torch_1f1b.py FIRST_CHILD_OF_STAGE_1 MICRO_BATCHES BATCH UPDATES``.
"""

import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from bench.runs import images
from stalegrid.models import resnet


def main(block: int, micro_batches: int, batch: int, updates: int) -> None:
    """Train and print the rate of the updates after the first fifth."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    children = list(resnet(20).children())
    module = nn.Sequential(*(children[:block] if rank == 0 else children[block:]))
    data = images(batch * 4)
    stage = PipelineStage(module, rank, 2, torch.device("cpu"))
    schedule = Schedule1F1B(stage, micro_batches, loss_fn=nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    start, skipped = 0.0, updates // 5
    for n in range(updates):
        if n == skipped:
            dist.barrier()
            start = time.perf_counter()
        part = slice(n % 4 * batch, (n % 4 + 1) * batch)
        optimizer.zero_grad()
        if rank == 0:
            schedule.step(data.inputs[part])
        else:
            schedule.step(target=data.targets[part], losses=[])
        optimizer.step()
    dist.barrier()
    if rank == 0:
        print(batch * (updates - skipped) / (time.perf_counter() - start))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
