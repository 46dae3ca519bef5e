"""One measured run of this library, through its public interface."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import stalegrid


def seconds_per_update(model: nn.Module, data: stalegrid.ArrayDataset, updates: int, **settings: Any) -> float:
    """Train and return the seconds an update takes once the pipeline is full.

    Args:
        model: what is trained.
        data: on what.
        updates: of each unit; the first fifth is left out.
        settings: fields of :class:`stalegrid.Settings`.
    """
    every = max(1, updates // 10)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        stalegrid.train(
            model,
            data,
            loss=nn.CrossEntropyLoss(),
            optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=5e-4),
            updates=updates,
            log_every=every,
            evaluate_every=0,
            out=folder,
            quiet=True,
            **settings,
        )
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    reports = [line for line in lines if line["kind"] == "train"]
    first, last = reports[1], reports[-1]
    return float((last["seconds"] - first["seconds"]) / (last["update"] - first["update"]))


def images(samples: int) -> stalegrid.ArrayDataset:
    """Return random images of CIFAR's shape."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(samples, 3, 32, 32, generator=draw)
    return stalegrid.ArrayDataset(pixels, torch.randint(0, 10, (samples,), generator=draw), 10)
