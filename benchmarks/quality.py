"""Time to quality as a picture: test loss over seconds on four hosts with slow links.

``python -m benchmarks.quality PICTURE``: PICTURE is an SVG file.  It is drawn from what the row ``far-loss`` has left:
the curves of :mod:`benchmarks.curves`, and the seconds of an update in benchmarks/results.json.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.curves import SEEDS, TARGET, WAYS, Curve, chosen, kept
from benchmarks.far_loss import LEARNED, OWN
from benchmarks.text import BATCH, EVALUATED

RESULTS = Path("benchmarks/results.json")

FOREIGN = {
    "DiLoCo every 40": "DiLoCo, every 40",
    "local SGD every 40": "local SGD, every 40",
    "torch GPipe M=2": "PyTorch's best pipeline (GPipe)",
    "DDP, float16 messages": "DDP, float16 messages",
    "DDP": "DDP",
}
"""Peers that are shown, and how they are called."""

COLOURS = ("#0072b2", "#007a5a", "#a8487f", "#c05000", "#5b4aa0", "#806000")


def main() -> None:
    """Draw."""
    matplotlib.rcParams["svg.hashsalt"] = "quality"  # the same names within the file each time
    draw().savefig(Path(sys.argv[1]), metadata={"Date": None})


def draw() -> Figure:
    """Return the picture: this library's ways in lines, its peers' dashed."""
    figures = json.loads(RESULTS.read_text())["far-loss"]["figures"]
    found = kept()
    figure = Figure(figsize=(7.5, 5.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot(xlabel="seconds", ylabel="test loss a character, nats", xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    ours = {way: f"stalegrid: {way}" for way, (kind, *_) in (WAYS | OWN).items() if kind == "grid"}
    shown = [(way, name, "-") for way, name in ours.items()] + [(way, name, "--") for way, name in FOREIGN.items()]
    shown = [one for one in shown if f"{one[0]}, samples/s" in figures]
    for number, (way, name, style) in enumerate(shown):
        rate = figures[f"{way}, samples/s"]["median"]
        curves = chosen(found, LEARNED[way], range(SEEDS))
        _line(axes, curves, BATCH / rate, name, style, COLOURS[number % len(COLOURS)])
    axes.axhline(TARGET, color="black", linewidth=0.8)
    axes.set_ylim(top=3.2)
    axes.grid(alpha=0.3, which="both")
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    axes.set_title(f"Four hosts, 100 Mbit/s, 20 ms: three seeds, the line is a loss of {TARGET}", fontsize="small")
    return figure


def _line(axes: Axes, curves: Sequence[Curve], seconds: float, name: str, style: str, colour: str) -> None:
    """Draw the mean over seeds, and what lies between them."""
    values = list(zip(*(curve.losses for curve in curves), strict=True))
    times = [EVALUATED * (i + 1) * seconds for i in range(len(values))]
    axes.plot(times, [statistics.fmean(v) for v in values], style, color=colour, label=name, linewidth=1.5)
    axes.fill_between(times, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.2, linewidth=0)


if __name__ == "__main__":
    main()
