"""Whether ``precision: bf16`` learns as float32 does: test loss of a decoder of text, in two stages, by update.

Every turn is a seed.  What bfloat16 changes is held against what another seed changes.
"""

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch.utils.data import Subset

import stalegrid
from benchmarks.measure import Figures, Ratio, Row
from benchmarks.text import BATCH, CUTS, EVALUATED, TESTED, batches, text
from stalegrid import GridSettings, OutputSettings

SEEDS, UPDATES, RATE = 3, 240, 0.001

Precision = Literal["bf16"] | None
PRECISIONS: tuple[Precision, ...] = (None, "bf16")

Losses = tuple[float, ...]
"""After every so many updates."""


def run(folder: Path, turns: int) -> Row:
    """Train in both precisions, on processes, and with the first seed on the simulator too.

    Args:
        folder: holds the text.
        turns: seeds, two at least for a spread.
    """
    seeds = range(min(turns, SEEDS))
    full, lower = ([_losses(folder, seed, precision, "processes") for seed in seeds] for precision in PRECISIONS)
    simulated = [_losses(folder, 0, precision, "simulator") for precision in PRECISIONS]
    return row(full, lower, [full[0] == simulated[0], lower[0] == simulated[1]])


def row(full: Sequence[Losses], lower: Sequence[Losses], equal: Sequence[bool]) -> Row:
    """Return how far the curves are from each other.

    Args:
        full: in float32, by seed.
        lower: in bf16, by seed.
        equal: whether curves on the simulator had the same bits.
    """
    gaps = [max(abs(f - b) for f, b in zip(*pair, strict=True)) for pair in zip(full, lower, strict=True)]
    spread = statistics.mean(max(losses) - min(losses) for losses in zip(*full, strict=True))
    figures: Figures = {
        "K=2, last test loss": [losses[-1] for losses in full],
        "K=2 in bf16, last test loss": [losses[-1] for losses in lower],
        "largest gap of the two curves of a seed": gaps,
        "greatest less least of all seeds in float32, mean over evaluations": [spread] * len(full),
    }
    relative = tuple(gap / spread for gap in gaps)
    ratios = [
        Ratio("largest gap of bf16's curve from float32's / greatest less least of all seeds", relative, at_most=1),
        Ratio("curves on processes that are the simulator's to the bit / all", (statistics.mean(equal),), at_least=1),
    ]
    return Row(figures, ratios, [f"{UPDATES} updates of {BATCH} samples, evaluated every {EVALUATED}, rate {RATE:g}"])


def _losses(folder: Path, seed: int, precision: Precision, engine: Literal["processes", "simulator"]) -> Losses:
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
            precision=precision,
            engine=engine,
            output=OutputSettings(folder=out, log_every=EVALUATED, evaluate_every=EVALUATED / epoch),
            quiet=True,
        )
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return tuple(line["test_loss"] for line in lines if line["kind"] == "test")
