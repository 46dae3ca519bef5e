"""A plain PyTorch loop in one process: ``loop WORKLOAD BATCH UPDATES [DEVICE [CHANGE]]``; prints seconds an update.

Changed by a type, such as ``bfloat16``, it forwards under autocast; by ``compiled``, the model is; by
``channels-last``, what convolutions train lies so.
"""

import sys
from typing import Any

import torch
from torch import nn

from benchmarks.peers.start import seconds_per_update, tell
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer


def measure(
    name: str,
    batch: int,
    updates: int,
    device: str = "cpu",
    models: int = 1,
    lower: torch.dtype | None = None,
    compiled: bool = False,
    lie: torch.memory_format = torch.contiguous_format,
) -> float:
    """Train models one after another, each on samples of its own, and return the seconds of an update of all."""
    torch.manual_seed(0)
    workload, loss = WORKLOADS[name], nn.CrossEntropyLoss()
    data = workload.samples(BATCHES * batch * models)
    trained = [workload.model().to(device, memory_format=lie) for _ in range(models)]  # type: ignore[call-overload]
    steps = [optimizer()(list(model.parameters())) for model in trained]
    called = [torch.compile(model, fullgraph=True, dynamic=False) if compiled else model for model in trained]

    def update(n: int) -> None:
        for i, (model, step) in enumerate(zip(called, steps, strict=True)):
            first = (n % BATCHES * models + i) * batch
            x, y = (part[first : first + batch].to(device) for part in (data.inputs, data.targets))
            step.zero_grad()
            with torch.autocast(device, lower, enabled=lower is not None):
                value = loss(model(x), y)
            value.backward()
            step.step()

    return seconds_per_update(update, updates)


def main(name: str, batch: int, updates: int, device: str = "cpu", change: str | None = None) -> None:
    """Train one model and print."""
    known: dict[str | None, dict[str, Any]] = {
        None: {},
        "compiled": {"compiled": True},
        "channels-last": {"lie": torch.channels_last},
    }
    changed = known[change] if change in known else {"lower": getattr(torch, str(change))}
    tell({"seconds": measure(name, batch, updates, device, **changed)})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
