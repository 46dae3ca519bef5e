"""Wall-clock time to a test accuracy on CIFAR-10, everybody on the same samples from the same first weights.

Every turn is a seed.  What each competitor needs for its evaluations is in its time: all stop for it, as no processor
is left for an observer that would evaluate while units train on, and processes share it.
"""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import stalegrid
from benchmarks.cifar import BATCH, EPOCHS, EVALUATED, UPDATES, cifar10
from benchmarks.measure import Figures, Row, ratio
from benchmarks.peers.start import started, under_torchrun
from benchmarks.runs import half
from stalegrid import GridSettings, OutputSettings

TARGET = 0.6
SEEDS = 3
"""At most: each takes a quarter of an hour."""

ONE, DDP = "one process, two threads", "DDP"

Curve = dict[float, float]
"""Seconds since training began -> test accuracy."""


def run(folder: Path, turns: int) -> Row:
    """Measure the seconds until an evaluation shows the accuracy.

    Args:
        folder: holds CIFAR-10's official files.
        turns: seeds.
    """
    cifar10(folder, 0)  # skipped before anything is measured
    cut = half("resnet20")
    ways = _ways(folder, cut)
    curves: dict[str, list[Curve]] = {name: [] for name in ways}
    for seed in range(min(turns, SEEDS)):
        for name, train in ways.items():
            curves[name].append(train(seed))
    return _row(curves, [f"{EPOCHS} epochs, {UPDATES} updates of {BATCH}; K=2 is cut before {cut}"])


def _row(curves: dict[str, list[Curve]], notes: list[str]) -> Row:
    figures: Figures = {}
    for name, found in curves.items():
        times = [min((s for s, accuracy in curve.items() if accuracy >= TARGET), default=None) for curve in found]
        reached = [seconds for seconds in times if seconds is not None]
        if len(reached) == len(found):
            figures[_seconds(name)] = reached
        else:
            notes = [*notes, f"{name}: {len(found) - len(reached)} of {len(found)} seeds did not reach {TARGET:.0%}"]
    for name, found in curves.items():
        figures[f"{name}, s for all epochs"] = [max(curve) for curve in found]
        figures[f"{name}, last accuracy"] = [curve[max(curve)] for curve in found]
    ours = [name for name in curves if name not in (ONE, DDP)]
    pairs = [(_seconds(peer), _seconds(name)) for peer in (ONE, DDP) for name in ours]
    goals = {_seconds(DDP): 1.0}
    ratios = [ratio(figures, *p, at_least=goals.get(p[0], 0.0)) for p in pairs if set(p) <= set(figures)]
    return Row(figures, ratios, notes)


def _seconds(name: str) -> str:
    return f"{name}, s to {TARGET:.0%}"


def _ways(folder: Path, cut: str) -> dict[str, Callable[[int], Curve]]:
    return {
        ONE: lambda seed: _curve(started("training", folder, seed, threads=2)),
        DDP: lambda seed: _curve(under_torchrun("training", 2, folder, seed)),
        "K=2 spectrain": partial(
            _stalegrid, folder, method="spectrain", groups=1, stages=2, cuts=[cut], batch_size=BATCH
        ),
        "S=2": partial(_stalegrid, folder, groups=2, stages=1, batch_size=BATCH // 2),
    }


def _curve(printed: dict[str, float]) -> Curve:
    return {float(seconds): accuracy for seconds, accuracy in printed.items()}


def _stalegrid(folder: Path, seed: int, cuts: list[str] | None = None, **settings: Any) -> Curve:
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "run"
        task = cifar10(folder, seed)
        stalegrid.train(
            task.model,
            task.data,
            loss=task.loss,
            optimizer=task.optimizer,
            scheduler=task.scheduler,
            test=task.test,
            augment=task.augment,
            epochs=EPOCHS,
            seed=seed,
            grid=GridSettings(cuts=cuts),
            output=OutputSettings(folder=out, log_every=UPDATES, evaluate_every=EVALUATED, evaluation="shared"),
            quiet=True,
            **settings,
        )
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["seconds"]: line["test_accuracy"] for line in lines if line["kind"] == "test"}
