"""Test error of finished runs with parameter servers, as a table and a picture.

``python -m benchmarks.contrast RUNS PICTURE``: RUNS holds the folders named in ``RUNS``; PICTURE is an SVG file.
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.console import Console
from rich.table import Table

RUNS = {
    "hardsync": ("hardsync", "black", "-"),
    "n1-inverse": ("n = 1, inverse", "#0072b2", "-"),
    "n15-inverse": ("n = 15, inverse", "#007a5a", "-"),
    "n30-inverse": ("n = 30, inverse", "#a8487f", "-"),
    "n15-constant": ("n = 15, constant", "#007a5a", ":"),
    "n30-constant": ("n = 30, constant", "#a8487f", ":"),
}


def main() -> None:
    """Print the table and draw the picture."""
    folder, picture = Path(sys.argv[1]), Path(sys.argv[2])
    shown = Table("run", "epochs", "test error", "training loss", "mean tau", "largest", "share above 2n")
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel="epochs", ylabel="test error", ylim=(0, 1))
    for name, (label, colour, style) in RUNS.items():
        tests = _tests(folder / name)
        epochs, errors = [t["epoch"] for t in tests], [1 - t["test_accuracy"] for t in tests]
        axes.plot(epochs, errors, style, color=colour, marker="o", markersize=3, label=label)
        if style == ":":
            axes.plot(epochs[-1], errors[-1], "x", color=colour, markersize=8)
        shown.add_row(label, f"{epochs[-1]:.3g}", f"{errors[-1]:.2%}", *_summary(folder / name))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(picture, metadata={"Date": None})
    Console(width=110).print(shown)


def _tests(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "test"]


def _summary(folder: Path) -> tuple[str, ...]:
    summary = json.loads((folder / "summary.json").read_text())
    seen = summary["staleness_of_all"]
    return f"{summary['train_loss']:.3f}", f"{seen['mean']:.2f}", str(seen["max"]), f"{seen['above_limit']:.1e}"


if __name__ == "__main__":
    main()
