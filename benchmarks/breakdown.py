"""Where the time of an update goes in this library's processes, apart: work, competition, overhead, messages, bubble.

*Work* is what a unit's share of the arithmetic takes in a plain PyTorch loop that has the machine to itself, and
*competition* what it takes more where as many such loops run at once as there are processes.  *Overhead* is what the
unit computes longer than that.  *Messages*: it waits for one that is under way.  *Bubble*: it waits for one that has
not left.  Means over units; the five add up to the time of an update.
"""

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.measure import Row, ratio, together
from benchmarks.peers.start import started
from benchmarks.runs import half, train
from benchmarks.workloads import BACKWARD, FORWARD, STAGES, WORKLOADS
from stalegrid.observe.sharing import shares
from stalegrid.observe.timeline import Timeline
from stalegrid.observe.trace import TRACE, read_trace
from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import OBSERVER, Unit

WHOLE = "whole"
PARTS = ("work", "competition", "overhead", "messages", "bubble")
SKIPPED = 0.3
"""Share of the updates that are left out at the start, and of those at the end."""

PROCESSES = 2
UPDATES = {"resnet20": 25, "sleepers": 60}


def run(turns: int) -> Row:
    """Measure seconds an update, and what they consist of."""
    cut = half("resnet20")
    cases = _cases(cut)
    figures = together(cases, turns)
    ratios = [ratio(figures, _figure(case, part), _figure(case, WHOLE)) for case in cases for part in PARTS]
    return Row(figures, ratios, [f"resnet20 is cut before {cut}"])


def _figure(case: str, part: str) -> str:
    return f"{case}: {part}, s/update"


def _cases(cut: str) -> dict[str, Callable[[], dict[str, float]]]:
    batch = WORKLOADS["resnet20"].batch
    pipeline = {"groups": 1, "stages": 2, "cuts": [cut]}
    emulated = {"groups": 1, "stages": STAGES, "cuts": [str(k) for k in range(1, STAGES)]}
    each: dict[str, Callable[[], dict[str, float]]] = {
        f"emulated, m = {c} (K-1-k)": partial(
            _emulated, staleness=[c * (STAGES - 1 - k) for k in range(STAGES)], **emulated
        )
        for c in (1, 2)
    }
    each["resnet20 K=2"] = partial(_real, 1 / 2, batch, pipeline)
    each["resnet20 S=2 ring"] = partial(_real, 1, batch // 2, {"groups": 2, "stages": 1, "batch_size": batch // 2})
    return {name: partial(_named, name, measure) for name, measure in each.items()}


def _named(name: str, measure: Callable[[], Mapping[str, float]]) -> dict[str, float]:
    return {_figure(name, part): seconds for part, seconds in measure().items()}


def _emulated(**settings: Any) -> dict[str, float]:
    return _apart(_spent("sleepers", **settings), FORWARD + BACKWARD, FORWARD + BACKWARD)


def _real(share: float, batch: int, settings: dict[str, Any]) -> dict[str, float]:
    spent = _spent("resnet20", **settings)
    alone, *others = (share * _loops("resnet20", batch, number) for number in (1, PROCESSES))
    return _apart(spent, alone, *others)


def _apart(spent: Mapping[str, float], work: float, among_others: float) -> dict[str, float]:
    parts = {
        "work": work,
        "competition": among_others - work,
        "overhead": spent["busy"] - among_others,
        "messages": spent["communicating"],
        "bubble": spent["waiting"],
    }
    return {WHOLE: sum(parts.values()), **parts}


def _loops(workload: str, batch: int, number: int) -> float:
    """Return the seconds of an update in plain loops of one thread, so many at once."""
    with ThreadPoolExecutor(number) as pool:
        loops = [pool.submit(started, "loop", workload, batch, UPDATES[workload]) for _ in range(number)]
        return mean(loop.result()["seconds"] for loop in loops)


def _spent(workload: str, **settings: Any) -> dict[str, float]:
    """Return the seconds of an update that units, on average, are busy, waiting, and waiting for messages under way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        train(workload, UPDATES[workload], folder, trace=True, **settings)
        timeline = read_trace(folder / TRACE)
    units = {span.unit for span in timeline.spans} - {OBSERVER}
    spent = [_seconds(timeline, unit) for unit in units]
    return {what: mean(each[what] for each in spent) for what in ("busy", "waiting", "communicating")}


def _seconds(timeline: Timeline, unit: Unit) -> dict[str, float]:
    """Return how a unit spends the time from one of its updates to a later one, in seconds an update."""
    ends = [span.end for span in timeline.spans if span.unit == unit and span.kind is Kind.UPDATE]
    first, last = round(SKIPPED * len(ends)), round((1 - SKIPPED) * len(ends))
    start, end = ends[first], ends[last]
    own = Timeline(
        [
            replace(span, start=span.start - start, end=span.end - start)
            for span in timeline.spans
            if span.unit == unit and start <= span.start < end
        ],
        {key: time - start for key, time in timeline.departures.items()},
        {key: time - start for key, time in timeline.arrivals.items()},
    )
    (share,) = shares(own)
    each = (end - start) / 1e9 / (last - first)
    return {"busy": share.busy * each, "waiting": share.waiting * each, "communicating": share.communicating * each}
