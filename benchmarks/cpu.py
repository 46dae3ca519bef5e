"""Residual networks on images of CIFAR's shape, 128 an update, in two processes of one thread: everybody's way."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.measure import Figures, Ratio, Row, best, ratio, together
from benchmarks.peers.start import started, under_torchrun
from benchmarks.runs import half, seconds_per_update

BATCH, PROCESSES = 128, 2
UPDATES = {"resnet20": 25, "resnet56": 12}

CHILD = {"resnet20": 6, "resnet56": 12}
"""Where PyTorch's pipeline is cut: it is cut between children, and this one begins the second half of the work."""

SCHEDULES = ("GPipe:4", "GPipe:8", "1F1B:4", "1F1B:8")
"""With 2 and with 16 micro-batches they were slower."""

DECENT = "decent-dp ring"
"""A peer that may not be installed: pip install 'stalegrid[bench]'."""


def run(turns: int) -> Row:
    """Measure samples a second; this library's cut is measured once."""
    figures: Figures = {}
    ratios: list[Ratio] = []
    notes: list[str] = []
    for name in UPDATES:
        cut = half(name)
        notes.append(f"{name} is cut before {cut}, PyTorch's pipeline before {CHILD[name]}")
        found = together(_competitors(name, cut), turns)
        figures |= {f"{name} {what}, samples/s": values for what, values in found.items()}
        ratios += _compare(figures, f"{name} ")
    return Row(figures, ratios, notes)


def _compare(figures: Figures, name: str) -> list[Ratio]:
    def named(what: str) -> str:
        return f"{name}{what}, samples/s"

    ours, groups, limit = named("K=2"), named("S=2 ring"), named("limit")
    figures[limit] = [PROCESSES * rate for rate in figures[named("one thread")]]
    theirs = [figure for figure in figures if figure.startswith(f"{name}torch ")]
    figures[named("best torch pipeline")] = best(figures, theirs, max)
    return [
        ratio(figures, ours, named("best torch pipeline"), at_least=1.35),
        ratio(figures, ours, named("DDP"), at_least=1.0),
        ratio(figures, ours, limit, at_least=0.88),
        ratio(figures, groups, named("DDP"), at_least=1.0),
        ratio(figures, ours, named("two threads")),
        *([ratio(figures, groups, named(DECENT), at_least=1.0)] if named(DECENT) in figures else []),
    ]


def _competitors(name: str, cut: str) -> dict[str, Callable[[], dict[str, float]]]:
    each = {
        "one thread": partial(_loop, name, 1),
        "DDP": partial(_parallel, "data_parallel", name),
        "K=2": partial(_stalegrid, name, groups=1, stages=2, cuts=[cut]),
        "S=2 ring": partial(_stalegrid, name, groups=2, stages=1, batch_size=BATCH // PROCESSES),
        DECENT: partial(_parallel, "decentralized", name),
        "two threads": partial(_loop, name, 2),
    }
    if find_spec("decent_dp") is None:
        del each[DECENT]
    one_by_one = {what: partial(_named, what, seconds) for what, seconds in each.items()}
    return {**one_by_one, "torch": partial(_pipelining, name)}


def _named(what: str, seconds: Callable[[], float]) -> dict[str, float]:
    return {what: BATCH / seconds()}


def _loop(name: str, number: int) -> float:
    return started("loop", name, BATCH, UPDATES[name], threads=number)["seconds"]


def _parallel(peer: str, name: str) -> float:
    return under_torchrun(peer, PROCESSES, name, BATCH, UPDATES[name])["seconds"]


def _stalegrid(name: str, **settings: Any) -> float:
    return seconds_per_update(name, UPDATES[name], **{"batch_size": BATCH, **settings})


def _pipelining(name: str) -> dict[str, float]:
    updates = max(10, UPDATES[name] // 2)  # of each schedule
    found = under_torchrun("pipelining", PROCESSES, name, BATCH, updates, CHILD[name], *SCHEDULES)
    return {f"torch {schedule.replace(':', ' M=')}": BATCH / seconds for schedule, seconds in found.items()}
