"""Seconds to a test loss of a decoder of text, on four hosts 20 ms from each other with links of 100 Mbit/s.

Each turn is a seed.  Everybody trains the same model from the same first weights on the same samples.  Rates are tried
with the first seed, and all seeds have the best; who computes the gradients of a plain loop has that of the first who
does.  Copies of the parameters are kept on the way and evaluated afterwards, in nobody's time.  The four hosts share
the processors of this machine, so work that is done at once gains less here than on machines of their own.

What was measured is kept in KEPT, a line for each competitor, rate and seed, and not measured again: an hour now and an
hour then add up.  Whoever wants all anew removes the file.
"""

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.far import DELAY, MBIT, staleness
from benchmarks.hosts import Host, hosts
from benchmarks.measure import THREADS, Figures, Row, ratio
from benchmarks.peers.start import on_hosts
from benchmarks.text import BATCH, EVALUATED, held_out_loss, text
from benchmarks.workloads import FAR
from stalegrid.engines.machine import computing

TARGET = 2.3
"""Test loss a character, in nats."""

UPDATES = {"pipelining": 600, "data_parallel": 600, "local": 1200, "grid": 1800}
"""By what is done: who makes an update in less time, from gradients that are worse, makes more of them."""

SEEDS, RATES = 3, (0.0005, 0.001, 0.003)
KEPT = Path("benchmarks/far-loss.jsonl")

PLAIN = "torch GPipe M=4"
WAYS = {
    PLAIN: ("pipelining", "GPipe:4"),
    "torch 1F1B M=8": ("pipelining", "1F1B:8"),
    "torch Interleaved1F1B M=4": ("pipelining", "Interleaved1F1B:4"),
    "DDP": ("data_parallel",),
    "DDP, float16 messages": ("data_parallel", "half"),
    "DDP, PowerSGD": ("data_parallel", "power"),
    **{f"local SGD every {every}": ("local", str(every), "mean") for every in (10, 40)},
    **{f"DiLoCo every {every}": ("local", str(every), "nesterov") for every in (10, 40)},
    **{
        f"K={FAR} {method}, m = {ahead} (K-1-k)": ("grid", method, optimizer, ",".join(map(str, staleness(ahead))))
        for method, optimizer in (("async-nesterov", "NAdam"), ("pipeoptim", "AdamW"))
        for ahead in (2, 3)
    },
}
"""Name -> what :mod:`benchmarks.peers.text` is to do."""


@dataclass(frozen=True)
class Found:
    """What came of one run.

    Args:
        way: by name.
        rate: of learning.
        seed: of weights and samples.
        update_seconds: of an update.
        curve: seconds since training began, and test loss, one pair an evaluation.
    """

    way: str
    rate: float
    seed: int
    update_seconds: float
    curve: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> float | None:
        """Return when an evaluation first showed the loss; None if none did."""
        return min((seconds for seconds, loss in self.curve if loss <= TARGET), default=None)

    @property
    def worth(self) -> tuple[float, float]:
        """Return what is least for the best: the time to the loss, and then the least loss."""
        return (float("inf") if self.seconds is None else self.seconds, min(loss for _, loss in self.curve))


def run(folder: Path, turns: int) -> Row:
    """Measure what has not been measured yet.

    Args:
        folder: holds the text.
        turns: seeds.
    """
    text(folder, 0, RATES[0])  # skipped before anything is measured
    found = _read()
    with hosts(FAR, MBIT, DELAY) as network:
        for seed in range(min(turns, SEEDS)):
            for way in WAYS:
                for rate in _rates(found, way, seed):
                    if not any((f.way, f.rate, f.seed) == (way, rate, seed) for f in found):
                        found.append(_train(network, folder, way, rate, seed))
                        with KEPT.open("a") as file:
                            file.write(json.dumps(asdict(found[-1])) + "\n")
    return row(found, range(min(turns, SEEDS)))


def _read() -> list[Found]:
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    records = map(json.loads, lines)
    return [Found(**{**record, "curve": tuple(map(tuple, record["curve"]))}) for record in records]


def _rates(found: Sequence[Found], way: str, seed: int) -> Sequence[float]:
    """Return the rates that a way is to be trained with."""
    plain = WAYS[way][0] in ("pipelining", "data_parallel")
    if way != PLAIN and plain:
        return [_best(found, PLAIN)]
    return [_best(found, way)] if seed else RATES


def _best(found: Sequence[Found], way: str) -> float:
    """Return the rate that was best with the first seed."""
    return min((f for f in found if (f.way, f.seed) == (way, 0)), key=lambda f: f.worth).rate


def _train(network: list[Host], folder: Path, way: str, rate: float, seed: int) -> Found:
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        made = on_hosts(network, "text", folder.resolve(), seed, UPDATES[WAYS[way][0]], rate, out, *WAYS[way])
        seconds = json.loads((out / "seconds.json").read_text())
        parts = [torch.load(out / f"{rank}.pt") for rank in range(FAR)]
    task = text(folder, seed, rate)
    with computing(THREADS):
        curve = [(seconds[str(n)], held_out_loss(task, [part[n] for part in parts])) for n in parts[0]]
    return Found(way, rate, seed, made["seconds"], tuple(curve))


def row(found: Sequence[Found], seeds: Sequence[int]) -> Row:
    """Return the figures of all seeds, each way at its best rate, and ratios of peers over the best of this library.

    Args:
        found: of every way with every seed.
        seeds: which count.
    """
    chosen = {
        way: [f for seed in seeds for f in found if (f.way, f.rate, f.seed) == (way, _best(found, way), seed)]
        for way in WAYS
    }
    figures: Figures = {}
    notes = [
        f"updates of {BATCH} samples, evaluated every {EVALUATED}; rates: "
        + ", ".join(f"{way} {runs[0].rate:g}" for way, runs in chosen.items())
    ]
    for way, runs in chosen.items():
        figures[f"{way}, samples/s"] = [BATCH / f.update_seconds for f in runs]
        figures[f"{way}, last test loss"] = [f.curve[-1][1] for f in runs]
        reached = [f.seconds for f in runs if f.seconds is not None]
        if len(reached) == len(runs):
            figures[_to_loss(way)] = reached
        else:
            notes.append(f"{way}: {len(runs) - len(reached)} of {len(runs)} seeds did not reach {TARGET}")
    there = [way for way in WAYS if _to_loss(way) in figures]
    ours = [way for way in there if WAYS[way][0] == "grid"]
    if not ours:
        return Row(figures, [], notes)
    best = min(ours, key=lambda way: statistics.median(figures[_to_loss(way)]))
    return Row(figures, [ratio(figures, _to_loss(way), _to_loss(best)) for way in there if way != best], notes)


def _to_loss(way: str) -> str:
    return f"{way}, s to a loss of {TARGET}"
