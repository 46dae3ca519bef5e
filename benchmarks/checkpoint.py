"""What it costs that a run is saved while it goes on: samples a second, and memory against what is written.

ResNet-20 on images of CIFAR's shape, two stages in processes, saved every 10 s or never; and a model of large layers,
in two stages too, whose processes hold little but parameters and what the optimizer keeps.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

import stalegrid
from benchmarks.measure import Row, ratio, together
from benchmarks.memory import MB, Watcher
from benchmarks.runs import half, steady, train
from benchmarks.workloads import optimizer, vectors
from stalegrid import CheckpointSettings, GridSettings, OutputSettings

BATCH, UPDATES, REPORTS = 128, 160, 40
"""An update takes a quarter of a second, so a run comes to three or four checkpoints of 10 s."""

EVERY, MINUTES = "a checkpoint every 10 s, samples/s", 1 / 6
NEVER = "none, samples/s"

WIDTH, LAYERS, STAGES = 2048, 8, 2
SAVED = 4
"""Updates from one checkpoint to the next, where memory is measured."""


def run(turns: int) -> Row:
    """Measure both."""
    cut = half("resnet20")
    parts: dict[str, Callable[[], dict[str, float]]] = {
        NEVER: partial(_rate, NEVER, cut, None),
        EVERY: partial(_rate, EVERY, cut, MINUTES),
        "memory": _memory,
    }
    figures = together(parts, turns)
    stages = [f"stage {k}" for k in range(STAGES)]
    added = [ratio(figures, f"{k}, added, MB", f"{k}, written, MB", at_most=1.0) for k in stages]
    return Row(figures, [ratio(figures, EVERY, NEVER, at_least=0.98), *added], [f"resnet20 is cut before {cut}"])


def _rate(name: str, cut: str, minutes: float | None) -> dict[str, float]:
    """Return samples a second, and how many checkpoints there were."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        settings: dict[str, Any] = {"groups": 1, "stages": 2, "batch_size": BATCH, "reports": REPORTS}
        train("resnet20", UPDATES, folder, [cut], checkpoint=CheckpointSettings(minutes=minutes, keep=1000), **settings)
        found = {name: BATCH / steady(folder)}
        return found if minutes is None else {**found, "checkpoints in such a run": len(_saved(folder))}


def _memory() -> dict[str, float]:
    """Return what a checkpoint adds to the peak of each stage's process, and the bytes that it writes."""
    (without, _), (peaks, written) = _peaks(None), _peaks(SAVED)
    figures: dict[str, float] = {}
    for k in range(STAGES):
        figures[f"stage {k}, added, MB"] = (peaks[k] - without[k]) / MB
        figures[f"stage {k}, written, MB"] = written[k] / MB
    return figures


def _peaks(every: int | None) -> tuple[list[int], list[int]]:
    """Return the peak of each stage's process, and the bytes that each writes for a checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        folder, watched = Path(name) / "run", [Path(name) / f"stage-{k}" for k in range(STAGES)]
        stalegrid.train(
            _watched(watched),
            vectors(WIDTH, 4 * BATCH),
            loss=nn.CrossEntropyLoss(),
            optimizer=optimizer(),
            grid=GridSettings(groups=1, stages=STAGES, cuts=[str(LAYERS + 1)]),
            batch_size=BATCH,
            updates=3 * SAVED + SAVED // 2,
            output=OutputSettings(folder=folder, evaluate_every=0),
            checkpoint=CheckpointSettings(every=every),
            quiet=True,
        )
        return [int(path.read_text()) for path in watched], [_written(folder, k) for k in range(STAGES)]


def _watched(paths: list[Path]) -> nn.Sequential:
    """Return large layers, with a watcher at the start of each stage."""
    parts: list[nn.Module] = []
    for path in paths:
        parts.append(Watcher(path))
        for _ in range(LAYERS // STAGES):
            parts += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*parts)


def _written(folder: Path, stage: int) -> int:
    saved = _saved(folder)
    return sum(file.stat().st_size for file in saved[-1].glob(f"group-0-stage-{stage}.*")) if saved else 0


def _saved(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("[0-9]*"))
