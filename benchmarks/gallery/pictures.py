"""Pictures of the gallery: the first figure of an entry over epochs, ways by panels, and distributions.

Does not know: how anything was trained, what is said of it, where pictures are written.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from benchmarks.gallery.entry import Counts, Entry, Same

_COLUMNS = {"test_error": 1, "test_loss": 2}
"""Where records have figures in the points of their curves, behind the epoch."""

_Curve = list[tuple[float, float]]
"""Points of epoch and figure."""


@dataclass(frozen=True)
class Picture:
    """One of them.

    Args:
        file: its name.
        says: what it shows, for those who cannot see it.
        draw: returns it.
    """

    file: str
    says: str
    draw: Callable[[], Canvas]


def pictures(entry: Entry, scale: str, seeds: Sequence[Same]) -> list[Picture]:
    """Return those of an entry at a scale: none where nothing was trained that has a curve."""
    found, figure, counts = [], entry.figures[0].name, entry.counts
    if curves := _curves(entry, scale, seeds):
        file, says = f"gallery-{entry.name}-{scale}.svg", f"{figure} over epochs"
        found.append(Picture(file, says, lambda: _over_epochs(figure, curves)))
    if counts and (shares := _shares(counts, seeds)):
        file, says = f"gallery-{entry.name}-{counts.name}-{scale}.svg", f"how often each {counts.name} was"
        found.append(Picture(file, says, lambda: _distribution(f"{counts.name}, {counts.unit}", shares)))
    return found


def _curves(entry: Entry, scale: str, seeds: Sequence[Same]) -> dict[str, dict[str, list[_Curve]]]:
    """Return the curves of every way, one for each seed with which it has a number, by panel."""
    column = _COLUMNS.get(entry.figures[0].key)
    panels: dict[str, dict[str, list[_Curve]]] = {}
    for way in entry.scales[scale].ways:
        found = [same[way.name] for same in seeds if way.name in same]
        curves = [one["curve"] for one in found if len(one["curve"]) > 1 and not one["failed"]]
        if curves and column is not None:
            panels.setdefault(way.panel, {})[way.name] = [[(p[0], p[column]) for p in curve] for curve in curves]
    return panels


def _shares(counts: Counts, seeds: Sequence[Same]) -> dict[str, list[float]]:
    """Return the share of each value from 0 on, of all seeds with which a way has counts together."""
    shares = {}
    for way in counts.ways:
        found = [same[way][counts.key] for same in seeds if way in same and counts.key in same[way]]
        if found:
            sums = [sum(each) for each in zip_longest(*found, fillvalue=0)]
            shares[way] = [each / sum(sums) for each in sums]
    return shares


def _over_epochs(name: str, panels: dict[str, dict[str, list[_Curve]]]) -> Canvas:
    """Draw the mean over seeds, and what lies between them."""
    canvas = Canvas(figsize=(8, 1.5 + 3 * len(panels)), layout="constrained", facecolor="white")
    every = canvas.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (panel, curves) in zip(every, panels.items(), strict=True):
        for number, (way, several) in enumerate(curves.items()):
            _line(axes, several, way, number)
        axes.set(title=panel, ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small", bbox_to_anchor=(1, 1), loc="upper left")
    every[-1].set(xlabel="epochs")
    return canvas


def _line(axes: Axes, several: Sequence[_Curve], way: str, number: int) -> None:
    points = list(zip(*several, strict=False))
    epochs = [same[0][0] for same in points]
    values = [[value for _, value in same] for same in points]
    style = ("-", "--", ":", "-.")[number % 4]
    (line,) = axes.plot(epochs, [statistics.fmean(v) for v in values], style, label=way)
    if len(several) > 1:
        low, high = [min(v) for v in values], [max(v) for v in values]
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def _distribution(name: str, shares: dict[str, list[float]]) -> Canvas:
    """Draw shares on a logarithmic axis, so that a few that are far from all others are seen."""
    canvas = Canvas(figsize=(8, 3), layout="constrained", facecolor="white")
    axes = canvas.add_subplot(xlabel=name, ylabel="share of all", yscale="log")
    for way, each in shares.items():
        axes.stairs(each, [value - 0.5 for value in range(len(each) + 1)], fill=True, alpha=0.6, label=way)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", bbox_to_anchor=(1, 1), loc="upper left")
    return canvas
