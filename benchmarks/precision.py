"""``precision: bf16`` over float32, in plain loops and in two stages, and whether the two compute the same."""

from collections.abc import Collection
from functools import partial

from torch import nn

from benchmarks.measure import Figures, Ratio, Row, interleave, ratio
from benchmarks.peers.start import started
from benchmarks.runs import half, seconds_per_update
from benchmarks.workloads import BATCHES, WORKLOADS, optimizer
from stalegrid.config import Settings
from stalegrid.plans import Task
from stalegrid.studies.verifying import verify

UPDATES = {"transformer": 10, "wide": 30, "resnet20": 10}
HELD = 6
"""Updates that are held against the simulator, and a plain loop of two stages if there is one, bit for bit."""


def run(turns: int) -> Row:
    """Measure samples a second."""
    return changed(turns, "in bf16", "bfloat16", {"precision": "bf16"})


def changed(
    turns: int, how: str, loop: str, settings: dict[str, object], names: Collection[str] = tuple(UPDATES)
) -> Row:
    """Measure samples a second as a model is and changed, in the method ``pipedream``; the cut is measured before.

    Args:
        turns: how often each is measured, in turn.
        how: it is changed, in words.
        loop: the same, as the plain loop is told.
        settings: the same, as this library is told.
        names: of the models.
    """
    figures: Figures = {}
    ratios: list[Ratio] = []
    notes: list[str] = []
    for name in names:
        cut, batch = half(name), WORKLOADS[name].batch
        each = {
            "loop": partial(_loop, name),
            f"loop {how}": partial(_loop, name, loop),
            "K=2": partial(_stalegrid, name, cut),
            f"K=2 {how}": partial(_stalegrid, name, cut, **settings),
        }
        seconds = interleave(each, turns)
        figures |= {f"{name} {what}, samples/s": [batch / one for one in found] for what, found in seconds.items()}
        ratios += [
            ratio(figures, f"{name} {what} {how}, samples/s", f"{name} {what}, samples/s") for what in ("loop", "K=2")
        ]
        ratios.append(_equal(name, cut, how, settings))
        notes.append(f"{name} is cut before {cut}")
    return Row(figures, ratios, notes)


def _loop(name: str, *change: str) -> float:
    return started("loop", name, WORKLOADS[name].batch, UPDATES[name], "cpu", *change)["seconds"]


def _stalegrid(name: str, cut: str, **options: object) -> float:
    return seconds_per_update(name, UPDATES[name], method="pipedream", stages=2, cuts=[cut], **options)


def _equal(name: str, cut: str, how: str, settings: dict[str, object]) -> Ratio:
    """Return in how many of the ways that there are, processes and a plain loop, all numbers are the simulator's."""
    chosen = WORKLOADS[name]
    task = Task(chosen.model(), chosen.samples(BATCHES * chosen.batch), nn.CrossEntropyLoss(), optimizer())
    options = {"batch_size": chosen.batch, "updates": HELD, "stages": 2, "cuts": [cut]}
    found = verify(task, Settings.of({"method": "pipedream", **options, **settings}))
    share = sum(difference.equal for difference in found) / len(found)
    ways = ", ".join(difference.name for difference in found)
    return Ratio(f"{name} {how}: share of {ways} with the losses and weights of the simulator", (share,), at_least=1)
