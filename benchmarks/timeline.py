"""The picture of a pipeline at work: what each stage does when, and which forward each update is late for.

``python -m benchmarks.timeline PICTURE``: trains four stages on the simulator, in the virtual time of four equal
devices, and draws what its trace says of some rounds; PICTURE is an SVG file.
"""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch
from torch import nn
from torch.utils.data import TensorDataset

import stalegrid

STAGES = 4
SHOWN = 7
"""The batch whose arrows are strong."""

PART = "forward: 10, backward: 18, update: 3, input: 1000, output: 1000, parameters: 1000, graph: 1000"
COSTS = "batch_size: 1\nparts:\n" + "".join(f"- {{name: '{k}', {PART}}}\n" for k in range(STAGES))
KINDS = {"forward": ("#0072b2", "forward"), "backward": ("#c05000", "backward"), "update": ("#007a5a", "update")}
LATE = "#a8487f"
SMALL = 9


@dataclass(frozen=True)
class Bar:
    """What a stage did from ``start`` to ``end``, in ms."""

    stage: int
    kind: str
    index: int
    start: float
    end: float


def traced() -> list[Bar]:
    """Train some updates and return what every stage did."""
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(STAGES)))
    data = TensorDataset(torch.ones(16, 1), torch.ones(16, 1))
    with tempfile.TemporaryDirectory() as name:
        costs, run = Path(name, "costs.yaml"), Path(name, "run")
        costs.write_text(COSTS)
        stalegrid.train(
            model, data, loss=nn.MSELoss(), optimizer=lambda p: torch.optim.SGD(p, lr=0.01), method="pipedream",
            groups=1, stages=STAGES, cuts=[str(i) for i in range(1, STAGES)], batch_size=1, updates=16,
            engine="simulator", devices=stalegrid.DeviceSettings(costs=costs, link=[2.0]),
            output=stalegrid.OutputSettings(folder=run, trace=True), quiet=True,
        )  # fmt: skip
        events = json.loads((run / "trace.json").read_text())["traceEvents"]
    return [
        Bar(said["unit"][1], event["cat"], said["index"], said["start"] / 1e6, said["end"] / 1e6)
        for event in events
        if event["ph"] == "X" and event["cat"] in KINDS
        for said in [event["args"]]
    ]


def late_by(bars: list[Bar], forward: Bar, update: Bar) -> int:
    """Return how many updates a stage made between a forward and the update that used it."""
    updates = [bar for bar in bars if (bar.stage, bar.kind) == (forward.stage, "update")]
    return sum(forward.start < bar.start < update.start for bar in updates)


def main() -> None:
    """Draw the picture."""
    bars = traced()
    find = {(bar.stage, bar.kind, bar.index): bar for bar in bars}
    start, end = find[0, "forward", SHOWN].start - 10, find[0, "update", SHOWN].end + 12
    figure = Figure(figsize=(7.2, 3.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot(xlim=(0, end - start), ylim=(STAGES - 0.6, -0.8), xlabel="ms, of four equal devices")
    for bar in bars:
        if bar.start < end and start < bar.end:
            _draw(axes, bar, start, end)
    for (stage, kind, batch), forward in find.items():
        update = find.get((stage, "update", batch))
        if kind == "forward" and update is not None and start < update.start and forward.end < end:
            _arrow(axes, forward, update, late_by(bars, forward, update), start)
    axes.set_yticks(range(STAGES), [f"stage {k}" for k in range(STAGES)])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=colour, label=name) for colour, name in KINDS.values()]
    arrows = Line2D([], [], color=LATE, linewidth=1.6, label="forward to the update that uses it")
    figure.legend(handles=[*handles, arrows], loc="outside upper left", ncols=4, frameon=False, handlelength=1.2)
    with rc_context({"svg.hashsalt": "timeline"}):  # else names within the picture are others each time
        figure.savefig(sys.argv[1], metadata={"Date": None})


def _draw(axes: Axes, bar: Bar, start: float, end: float) -> None:
    left, right = max(bar.start, start) - start, min(bar.end, end) - start
    axes.barh(bar.stage, right - left, 0.5, left, color=KINDS[bar.kind][0], edgecolor="white", linewidth=0.6)
    if bar.kind != "update" and right - left > 8:
        text = f"{bar.kind[0].upper()}{bar.index}"
        axes.text((left + right) / 2, bar.stage, text, ha="center", va="center", fontsize=SMALL, color="white")


def _arrow(axes: Axes, forward: Bar, update: Bar, late: int, start: float) -> None:
    strong = forward.index == SHOWN
    ends = [((bar.start + bar.end) / 2 - start, bar.stage - 0.26) for bar in (forward, update)]
    bend = -9 / (ends[1][0] - ends[0][0])  # arrows of all lengths are as high
    arrow = FancyArrowPatch(*ends, connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=9, color=LATE)
    arrow.set(linewidth=1.6 if strong else 0.7, alpha=1.0 if strong else 0.35)
    axes.add_patch(arrow)
    if strong:
        middle = (ends[0][0] + ends[1][0]) / 2
        text = f"{late} update{'' if late == 1 else 's'} late" if late else "not late"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.text(middle, update.stage - 0.57, text, ha="center", va="center", fontsize=SMALL, color=LATE, bbox=box)


if __name__ == "__main__":
    main()
