"""One measured run of this library, through its public interface."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

import stalegrid
from benchmarks.measure import THREADS
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer
from stalegrid import ArrayDataset, GridSettings, OutputSettings
from stalegrid.engines.machine import computing
from stalegrid.partition.cutting import partition


def half(workload: str) -> str:
    """Return where a workload is cut into two stages of one thread each, measured here."""
    chosen = WORKLOADS[workload]
    with computing(THREADS):
        (cut,) = partition(chosen.model(), (chosen.samples(chosen.batch).inputs,), 2).names
    return cut


def train(
    workload: str,
    updates: int,
    out: Path,
    cuts: list[str] | None = None,
    trace: bool = False,
    read: Callable[[ArrayDataset], Dataset[Any]] = lambda samples: samples,
    reports: int = 10,
    **settings: Any,
) -> None:
    """Train a workload, quietly and without any evaluation but the last.

    Args:
        workload: by name.
        updates: of each unit.
        out: folder to be made.
        cuts: where the workload is cut; balanced if left out.
        trace: whether it is recorded what every unit did when.
        read: makes of samples in memory the data set that is read.
        reports: how many, about.
        settings: options of :func:`stalegrid.train`; the workload's batch size if there is none.
    """
    chosen = WORKLOADS[workload]
    batch = settings.setdefault("batch_size", chosen.batch)
    stalegrid.train(
        chosen.model(),
        read(chosen.samples(BATCHES * batch * settings.get("groups", settings.get("learners", 1)))),
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer(),
        updates=updates,
        grid=GridSettings(cuts=cuts),
        output=OutputSettings(folder=out, log_every=max(1, updates // reports), evaluate_every=0, trace=trace),
        quiet=True,
        **settings,
    )


def seconds_per_update(workload: str, updates: int, **settings: Any) -> float:
    """Train and return the seconds an update takes once the pipeline is full.

    Args:
        workload: by name.
        updates: of each unit; the first fifth is left out.
        settings: see :func:`train`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        train(workload, updates, folder, **settings)
        return steady(folder)


def steady(folder: Path) -> float:
    """Return the seconds an update took in a run from its second report on.

    Args:
        folder: of the run.
    """
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    reports = [line for line in lines if line["kind"] == "train"]
    first, last = reports[1], reports[-1]
    return float((last["seconds"] - first["seconds"]) / (last["update"] - first["update"]))
