"""What is trained: the user's own model, data, loss and optimizer, as ordinary PyTorch objects.

Does not know: grids, methods, engines.
"""

import hashlib
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from stalegrid.corrections import Maker
from stalegrid.data.augment import CropAndFlip
from stalegrid.seeds import drawing

SAMPLED = 16
"""Items that a fingerprint looks at."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Args:
        model: maps a batch of inputs to a tensor or a tuple of tensors.
        data: map-style training data of (input, target) pairs.
        loss: (outputs, targets) -> loss averaged over the samples, shape ().
        optimizer: parameters -> a torch optimizer; called once a unit.
        scheduler: optimizer -> a torch scheduler, stepped once an update; None for a constant rate.
        test: map-style test data; None for none.
        augment: drawn anew for every epoch and sample; None for none.
        corrections: the user's own, what makes each for a unit; they act after the named ones.
    """

    model: nn.Module
    data: Dataset[Any]
    loss: Callable[..., Tensor]
    optimizer: Callable[[list[nn.Parameter]], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    test: Dataset[Any] | None = None
    augment: CropAndFlip | None = None
    corrections: tuple[Maker, ...] = ()


def fingerprint(task: Task) -> str:
    """Summarise a task's data: its size and some of its items, drawn alike in every process."""
    seen = hashlib.blake2b()
    for data in (task.data, task.test):
        size = len(cast(Sized, data)) if data is not None else 0
        seen.update(str(size).encode())
        for index in range(0, size, max(1, size // SAMPLED)):
            with drawing(torch.device("cpu"), 0, "sample", 0, index):
                for part in _flatten(cast(Any, data)[index]):
                    seen.update(part)
    return seen.hexdigest()


def _flatten(item: Any) -> Iterator[bytes]:
    if isinstance(item, Tensor):
        yield f"{item.dtype}{tuple(item.shape)}".encode()
        yield item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(item, tuple | list):
        for part in item:
            yield from _flatten(part)
    else:
        yield repr(item).encode()
