"""Test loss of a decoder of text by update: what everybody learns in one, however long it takes.

Does not know: time.

What an update computes follows from the weights, the samples and the schedule, and nothing in it from when a message
came.  So everybody is trained here in four processes of one machine, at full speed, from the same first weights on the
same samples, and how long an update takes on other hosts is for others to measure.  Rates are tried with the first
seed, and all seeds have the best; whoever computes the gradients of a plain loop, but sends them in fewer bits, has its
rate.  Who has not reached the loss then is trained for twice as long, with all seeds.  Copies of the parameters are
kept on the way and evaluated afterwards.

What was trained is kept in KEPT, a line for each way, rate, seed and number of updates, and not trained again: an hour
now and an hour then add up.  Whoever wants all anew removes the file.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.measure import THREADS
from benchmarks.peers.start import under_torchrun
from benchmarks.text import EVALUATED, held_out_loss, text
from benchmarks.workloads import FAR
from stalegrid.engines.machine import computing

TARGET = 2.35
"""Test loss a character, in nats.

A plain loop was looked at first, and nothing else: at a rate of 0.001 it had 2.321 after two thirds of its updates.
"""

UPDATES, MORE = 480, 960
"""In which rates are tried, and of who has not reached the loss in them at its best rate."""

SEEDS, RATES = 3, (0.0005, 0.001, 0.003)
KEPT = Path("benchmarks/far-loss.jsonl")

MEAN = "mean gradient"
"""What DDP computes, and PyTorch's pipelines up to rounding, whatever their schedule: one curve stands for them."""


def grid(**settings: object) -> tuple[str, ...]:
    """Return what :mod:`benchmarks.peers.text` is told of a grid of this library."""
    return ("grid", "AdamW", json.dumps(settings))


def _pipeline(method: str, micro_batches: int, staleness: Sequence[int]) -> dict[str, tuple[str, ...]]:
    name = f"K={FAR} {method}, M = {micro_batches}, m = {','.join(map(str, staleness))}"
    shape = {"groups": 1, "stages": FAR, "staleness": list(staleness), "micro_batches": micro_batches}
    return {name: grid(method=method, **shape)}


WAYS = {
    MEAN: ("data_parallel",),
    "DDP, PowerSGD": ("data_parallel", "power"),
    "local SGD every 10": ("local", "10", "mean"),
    "local SGD every 40": ("local", "40", "mean"),
    "DiLoCo every 40": ("local", "40", "nesterov"),
    **_pipeline("pipedream", 8, (8, 5, 2, 0)),  # gradients are one update late, those of the last stage are not
    **_pipeline("dsp", 8, (8, 5, 2, 0)),
    "S=2 K=2 pham-ahn, M = 4, m = 4,0, averaging every 10": grid(
        method="pham-ahn", groups=2, stages=2, staleness=[4, 0], micro_batches=4, mixing={"period": 10}
    ),
}
"""Name -> what :mod:`benchmarks.peers.text` is to do."""


@dataclass(frozen=True)
class Curve:
    """What was learned in one run.

    Args:
        way: by name.
        rate: of learning.
        seed: of weights and samples.
        losses: on test samples, after every ``EVALUATED`` updates.
    """

    way: str
    rate: float
    seed: int
    losses: tuple[float, ...]

    @property
    def trained(self) -> int:
        """Return how many updates were made."""
        return EVALUATED * len(self.losses)

    @property
    def key(self) -> tuple[str, float, int, int]:
        """Return what no other curve has."""
        return (self.way, self.rate, self.seed, self.trained)

    @property
    def updates(self) -> float | None:
        """Return the updates to the loss, on a line between two evaluations; None if it was not reached."""
        if self.losses[0] <= TARGET:
            return float(EVALUATED)
        for i, (before, after) in enumerate(pairwise(self.losses), 1):
            if after <= TARGET:
                return EVALUATED * (i + (before - TARGET) / (before - after))
        return None

    @property
    def worth(self) -> tuple[float, float]:
        """Return what is least for the best: the updates to the loss, and then the least loss."""
        return (float("inf") if self.updates is None else self.updates, min(self.losses))


def curves(folder: Path, seeds: Sequence[int]) -> list[Curve]:
    """Train what has not been trained yet, and return every curve.

    Args:
        folder: holds the text.
        seeds: from 0 on.

    Raises:
        Skipped: there is no text.
    """
    text(folder, 0, RATES[0])  # skipped before anything is trained
    found = kept()
    for way in WAYS:
        for rate in _tried(found, way):
            _grow(found, folder, way, rate, 0, UPDATES)
    for seed in seeds:
        for way in WAYS:
            best = _best(found, way)
            _grow(found, folder, way, best.rate, seed, _enough(best))
    return found


def chosen(found: Sequence[Curve], way: str, seeds: Sequence[int]) -> list[Curve]:
    """Return the curves of a way at its best rate, seed by seed."""
    best = _best(found, way)
    wanted = [(way, best.rate, seed, _enough(best)) for seed in seeds]
    return [curve for one in wanted for curve in found if curve.key == one]


def kept() -> list[Curve]:
    """Return what has been learned so far."""
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    records = map(json.loads, lines)
    return [Curve(**{**record, "losses": tuple(record["losses"])}) for record in records]


def _tried(found: Sequence[Curve], way: str) -> Sequence[float]:
    """Return the rates that a way is to be tried with."""
    return [_best(found, MEAN).rate] if way != MEAN and WAYS[way][0] == "data_parallel" else RATES


def _best(found: Sequence[Curve], way: str) -> Curve:
    """Return what was learned at the best rate in the trial."""
    trials = [c for c in found if (c.way, c.seed, c.trained) == (way, 0, UPDATES)]
    return min(trials, key=lambda c: c.worth)


def _enough(trial: Curve) -> int:
    """Return the updates of all seeds, after the best trial."""
    return MORE if trial.updates is None else UPDATES


def _grow(found: list[Curve], folder: Path, way: str, rate: float, seed: int, updates: int) -> None:
    """Train, and keep what was learned, if that was not done before."""
    if any(curve.key == (way, rate, seed, updates) for curve in found):
        return
    found.append(_train(folder, way, rate, seed, updates))
    with KEPT.open("a") as file:
        file.write(json.dumps(asdict(found[-1])) + "\n")


def _train(folder: Path, way: str, rate: float, seed: int, updates: int) -> Curve:
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        under_torchrun("text", FAR, folder.resolve(), seed, updates, EVALUATED, rate, out, *WAYS[way])
        parts = [torch.load(out / f"{rank}.pt") for rank in range(FAR)]
    task = text(folder, seed, rate)
    with computing(THREADS):
        return Curve(way, rate, seed, tuple(held_out_loss(task, [part[n] for part in parts]) for n in parts[0]))
