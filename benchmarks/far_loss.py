"""Seconds to a test loss of a decoder of text, on four hosts 20 ms from each other with links of 100 Mbit/s.

They are a product: updates to the loss, seed by seed (:mod:`benchmarks.curves`), times the seconds of an update on the
four hosts, which is measured here in short runs, in turn, and its median taken.  The four hosts share the processors of
this machine, so work that is done at once gains less here than on machines of their own.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks import curves
from benchmarks.curves import MEAN, SEEDS, TARGET, Curve, chosen
from benchmarks.far import DELAY, MBIT
from benchmarks.hosts import Host, hosts
from benchmarks.measure import Figures, Row, interleave, ratio
from benchmarks.peers.start import on_hosts
from benchmarks.text import BATCH, EVALUATED
from benchmarks.workloads import FAR

SAME = {
    **{
        f"torch {kind} M={micro_batches}": ("pipelining", f"{kind}:{micro_batches}")
        for kind, micro_batches in (("GPipe", 2), ("GPipe", 4), ("1F1B", 4), ("Interleaved1F1B", 4))
    },
    "DDP": curves.WAYS[MEAN],
    "DDP, float16 messages": ("data_parallel", "half"),
}
"""Who follows the mean gradient of the same samples, and so learns the same up to rounding."""

AVERAGED: dict[str, object] = {"kind": "adapt-then-combine", "topology": "complete"}
GROUPS: dict[str, tuple[str, dict[str, object]]] = {
    f"S={FAR}, averaging every 10": ("local SGD every 10", AVERAGED | {"period": 10}),
    f"S={FAR}, averaging every 40": ("local SGD every 40", AVERAGED | {"period": 40}),
    f"S={FAR}, outer steps every 40": ("DiLoCo every 40", {"kind": "outer", "topology": "complete", "period": 40}),
}
"""Local SGD and DiLoCo as this library does them, name -> whose numbers these are, up to rounding, and the mixing."""


def _grid(mixing: Mapping[str, object]) -> tuple[str, ...]:
    return curves.grid(method="pipedream", groups=FAR, stages=1, mixing=mixing)


OWN = {way: _grid(mixing) for way, (_, mixing) in GROUPS.items()}
WAYS = SAME | {way: done for way, done in curves.WAYS.items() if way != MEAN} | OWN
"""Name -> what :mod:`benchmarks.peers.text` is to do."""

LEARNED = (
    {way: way for way in curves.WAYS} | dict.fromkeys(SAME, MEAN) | {way: whose for way, (whose, _) in GROUPS.items()}
)
"""Name -> whose curve it has."""

TIMED = {"pipelining": 10, "data_parallel": 10, "local": 40, "grid": 40}
"""Updates that are timed, after as many and before as many; whole periods of whoever averages now and then."""


def run(folder: Path, turns: int) -> Row:
    """Train what has not been trained yet, and measure how long updates take.

    Args:
        folder: holds the text.
        turns: seeds, and measurements of every competitor.
    """
    seeds = range(min(turns, SEEDS))
    found = curves.curves(folder, seeds)
    with hosts(FAR, MBIT, DELAY) as network:
        seconds = interleave({way: partial(_seconds, network, folder, way) for way in WAYS}, turns)
    return row({way: chosen(found, LEARNED[way], seeds) for way in WAYS}, seconds)


def _seconds(network: list[Host], folder: Path, way: str) -> float:
    timed = TIMED[WAYS[way][0]]
    with tempfile.TemporaryDirectory() as out:
        found = on_hosts(network, "text", folder.resolve(), 0, 3 * timed, timed, curves.RATES[0], out, *WAYS[way])
    return found["seconds"]


def row(learned: Mapping[str, Sequence[Curve]], seconds: Figures) -> Row:
    """Return the figures of all, and how much longer others take to the loss than the best of this library.

    Args:
        learned: by every way, a curve for each seed.
        seconds: of an update of every way, by turn.
    """
    figures: Figures = {}
    notes = [
        f"updates of {BATCH} samples, test loss after every {EVALUATED}; seconds to a loss are updates to it, by seed, "
        "times the median of the seconds of an update; rates: "
        + ", ".join(f"{way} {found[0].rate:g}" for way, found in learned.items())
    ]
    for way, found in learned.items():
        figures[f"{way}, samples/s"] = [BATCH / one for one in seconds[way]]
        figures[f"{way}, last test loss"] = [curve.losses[-1] for curve in found]
        reached = [curve.updates for curve in found if curve.updates is not None]
        if len(reached) == len(found):
            figures[f"{way}, updates to a loss of {TARGET}"] = reached
            figures[_to_loss(way)] = [updates * statistics.median(seconds[way]) for updates in reached]
        else:
            notes.append(f"{way}: {len(found) - len(reached)} of {len(found)} seeds did not reach {TARGET}")
    there = [way for way in learned if _to_loss(way) in figures]
    ours = [way for way in there if WAYS[way][0] == "grid"]
    if not ours:
        return Row(figures, [], notes)
    best = min(ours, key=lambda way: statistics.median(figures[_to_loss(way)]))
    return Row(figures, [ratio(figures, _to_loss(way), _to_loss(best)) for way in there if way != best], notes)


def _to_loss(way: str) -> str:
    return f"{way}, s to a loss of {TARGET}"
