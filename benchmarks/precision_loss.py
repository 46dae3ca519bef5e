"""Whether ``precision: bf16`` and compiled stages learn as float32 does: test loss of a decoder of text, two stages.

Every turn is a seed.  What each changes is held against what another seed changes.
"""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Subset

import stalegrid
from benchmarks.measure import Figures, Ratio, Row
from benchmarks.text import BATCH, CUTS, EVALUATED, TESTED, batches, text
from stalegrid import GridSettings, OutputSettings

SEEDS, UPDATES, RATE = 3, 240, 0.001

CHANGED: dict[str, dict[str, Any]] = {"bf16": {"precision": "bf16"}, "compiled": {"compile": True}}
"""What differs from float32 as it is, as options of :func:`stalegrid.train`."""

Losses = tuple[float, ...]
"""After every so many updates."""


def run(folder: Path, turns: int) -> Row:
    """Train every way on processes, and with the first seed on the simulator too.

    Args:
        folder: holds the text.
        turns: seeds, two at least for a spread.
    """
    seeds = range(min(turns, SEEDS))
    full = [_losses(folder, seed, "processes") for seed in seeds]
    changed = {
        name: [_losses(folder, seed, "processes", **options) for seed in seeds] for name, options in CHANGED.items()
    }
    equal = [full[0] == _losses(folder, 0, "simulator")]
    equal += [changed[name][0] == _losses(folder, 0, "simulator", **options) for name, options in CHANGED.items()]
    return row(full, changed, equal)


def row(full: Sequence[Losses], changed: Mapping[str, Sequence[Losses]], equal: Sequence[bool]) -> Row:
    """Return how far the curves are from each other.

    Args:
        full: in float32, by seed.
        changed: likewise, by what was changed.
        equal: whether curves on the simulator had the same bits.
    """
    spread = statistics.mean(max(losses) - min(losses) for losses in zip(*full, strict=True))
    figures: Figures = {
        "K=2, last test loss": [losses[-1] for losses in full],
        "greatest less least of all seeds in float32, mean over evaluations": [spread] * len(full),
    }
    ratios = []
    for name, curves in changed.items():
        gaps = [max(abs(f - c) for f, c in zip(*pair, strict=True)) for pair in zip(full, curves, strict=True)]
        figures[f"K=2, {name}, last test loss"] = [losses[-1] for losses in curves]
        figures[f"{name}, largest gap of the two curves of a seed"] = gaps
        what = f"{name}, largest gap from the curve in float32 / greatest less least of all seeds"
        ratios.append(Ratio(what, tuple(gap / spread for gap in gaps), at_most=1))
    same = Ratio("curves on processes that are the simulator's to the bit / all", (statistics.mean(equal),), at_least=1)
    notes = [f"{UPDATES} updates of {BATCH} samples, evaluated every {EVALUATED}, rate {RATE:g}"]
    return Row(figures, [*ratios, same], notes)


def _losses(folder: Path, seed: int, engine: Literal["processes", "simulator"], **options: Any) -> Losses:
    task = text(folder, seed, RATE)
    assert task.test is not None
    epoch = batches(task, seed, 1).updates_per_epoch
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "run"
        stalegrid.train(
            task.model,
            task.data,
            loss=task.loss,
            optimizer=task.optimizer,
            scheduler=task.scheduler,
            test=Subset(task.test, range(TESTED)),
            updates=UPDATES,
            seed=seed,
            method="pipedream",
            groups=1,
            stages=2,
            grid=GridSettings(cuts=[str(cut) for cut in CUTS[2]]),
            batch_size=BATCH,
            engine=engine,
            output=OutputSettings(folder=out, log_every=EVALUATED, evaluate_every=EVALUATED / epoch),
            quiet=True,
            **options,
        )
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return tuple(line["test_loss"] for line in lines if line["kind"] == "test")
