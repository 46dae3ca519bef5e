"""``precision: bf16`` over float32, in plain loops and in two stages, and whether the two compute the same."""

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
"""Updates that are held against a plain loop of two stages, bit for bit."""


def run(turns: int) -> Row:
    """Measure samples a second, in the method ``pipedream``; the cut is measured once, in float32."""
    figures: Figures = {}
    ratios: list[Ratio] = []
    notes: list[str] = []
    for name in UPDATES:
        cut, batch = half(name), WORKLOADS[name].batch
        each = {
            "loop": partial(_loop, name),
            "loop in bf16": partial(_loop, name, "bfloat16"),
            "K=2": partial(_stalegrid, name, cut),
            "K=2 in bf16": partial(_stalegrid, name, cut, precision="bf16"),
        }
        seconds = interleave(each, turns)
        figures |= {f"{name} {what}, samples/s": [batch / one for one in found] for what, found in seconds.items()}
        ratios += [
            ratio(figures, f"{name} {what} in bf16, samples/s", f"{name} {what}, samples/s") for what in ("loop", "K=2")
        ]
        ratios.append(_equal(name, cut))
        notes.append(f"{name} is cut before {cut}")
    return Row(figures, ratios, notes)


def _loop(name: str, *lower: str) -> float:
    return started("loop", name, WORKLOADS[name].batch, UPDATES[name], "cpu", *lower)["seconds"]


def _stalegrid(name: str, cut: str, **options: str) -> float:
    return seconds_per_update(name, UPDATES[name], method="pipedream", stages=2, cuts=[cut], **options)


def _equal(name: str, cut: str) -> Ratio:
    """Return in how many of two ways, processes and a plain loop, all numbers are the simulator's."""
    chosen = WORKLOADS[name]
    task = Task(chosen.model(), chosen.samples(BATCHES * chosen.batch), nn.CrossEntropyLoss(), optimizer())
    options = {"batch_size": chosen.batch, "updates": HELD, "precision": "bf16", "stages": 2, "cuts": [cut]}
    found = verify(task, Settings.of({"method": "pipedream", **options}))
    equal = sum(difference.equal for difference in found)
    return Ratio(f"{name} in bf16: ways of two with the losses and weights of the simulator", (equal / 2,), at_least=1)
