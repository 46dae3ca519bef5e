"""What came of several runs, side by side: numbers, a table and a plot, read from the folders of the runs.

Does not know: how and when runs are trained.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stalegrid.methods import find_grid
from stalegrid.observe import SUMMARY, Record
from stalegrid.recipes import RunConfig
from stalegrid.report import read_metrics, read_summary
from stalegrid.written import MEBIBYTE, exists, read_text, replace, to_json, write_text

CURVES = (
    ("test", "test_accuracy", "test accuracy"),
    ("test", "test_loss", "test loss"),
    ("train", "loss", "training loss"),
)
"""What can be drawn over epochs: kind of line in the metrics, its key, its name; the first that there is is drawn."""

FAILURE = "failure.txt"
"""Why a run failed, in its folder."""


@dataclass(frozen=True)
class Run:
    """One run of a comparison, as its folder tells.

    Args:
        config: how it is trained.
        folder: its own.
        updates: N.
    """

    config: RunConfig
    folder: Path
    updates: int

    @property
    def method(self) -> str:
        """The name of its method."""
        return find_grid(self.config.method.name).name

    def summary(self) -> Record | None:
        """Return its summary, if it is finished well."""
        if self.failure() or not exists(self.folder / SUMMARY):
            return None
        summary = read_summary(self.folder)
        return summary if summary["updates"] == self.updates else None

    def failure(self) -> str | None:
        """Return why it failed, if it did."""
        path = self.folder / FAILURE
        return read_text(path, MEBIBYTE).strip() if exists(path) else None

    def metrics(self, kind: str, key: str) -> list[tuple[float, float]]:
        """Return (epoch, value) of every line of its metrics that has the value."""
        lines = (line for line in read_metrics(self.folder) if line["kind"] == kind)
        return [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]


def write(base: RunConfig, runs: Sequence[Run], out: Path) -> Record:
    """Write what the folders of the runs hold as numbers, table and plot.

    Args:
        base: of the comparison.
        runs: finished, failed or to come.
        out: folder of the comparison.

    Returns:
        The content of ``comparison.json``.
    """
    by_method: dict[str, list[Run]] = {}
    for run in runs:
        by_method.setdefault(run.method, []).append(run)
    outcomes = [_outcome(same) for same in by_method.values()]
    seeds = len(runs) // len(by_method)
    shape = f"{base.grid.groups} x {base.grid.stages} (groups x stages)"
    comparison: Record = {
        "title": f"{base.model.name} on {base.data.name}, {shape}, seeds: {seeds}",
        "methods": outcomes,
        **_curves(by_method),
    }
    write_text(out / "comparison.json", to_json(comparison, indent=2) + "\n")
    write_text(out / "comparison.md", _markdown(comparison))
    replace(out / "comparison.png", lambda part: _plot(comparison, part))
    return comparison


def _outcome(runs: Sequence[Run]) -> Record:
    """Return what came of the runs of one method, one a seed."""
    config = runs[0].config
    found = [(run, summary) for run in runs if (summary := run.summary())]
    summaries = [summary for _, summary in found]
    return {
        "method": runs[0].method,
        "groups": config.grid.groups,
        "stages": config.grid.stages,
        "batch_size": config.training.batch_size,
        "runs": len(runs),
        "finished": {str(run.config.training.seed): summary for run, summary in found},
        "failed": {str(run.config.training.seed): reason for run in runs if (reason := run.failure())},
        **{name: _spread([s[name] for s in summaries if s.get(name) is not None]) for name in NUMBERS},
        "staleness": _by_stage(summaries, "max", max),
        "gap": _by_stage(summaries, "gap", statistics.fmean),
        "held": _by_stage(summaries, "held", max),
    }


def _spread(values: Sequence[float]) -> Record | None:
    """Return mean and sample standard deviation; a single value has no spread."""
    if not values:
        return None
    return {"mean": statistics.fmean(values), "spread": statistics.stdev(values) if len(values) > 1 else None}


def _by_stage(summaries: Sequence[Record], name: str, of: Callable[[Sequence[float]], float]) -> list[float | None]:
    """Return a number for every stage, over seeds; None for a stage that does not have it."""
    stages = zip(*(s["staleness"] for s in summaries), strict=True)
    seen = [[stage[name] for stage in same if stage.get(name) is not None] for same in stages]
    return [of(values) if values else None for values in seen]


def _curves(by_method: dict[str, list[Run]]) -> Record:
    """Return mean, smallest and largest value over seeds, by epoch, of the first quantity that was measured."""
    for kind, key, label in CURVES:
        curves = {
            name: _band([run.metrics(kind, key) for run in runs if run.summary()]) for name, runs in by_method.items()
        }
        if any(curves.values()):
            return {"curve": label, "curves": curves}
    return {"curve": CURVES[0][-1], "curves": {}}


def _band(curves: Sequence[list[tuple[float, float]]]) -> list[Record]:
    points = []
    for same in zip(*curves, strict=True):
        values = [value for _, value in same]
        points.append({"epoch": same[0][0], "mean": statistics.fmean(values), "min": min(values), "max": max(values)})
    return points


def table(comparison: Record) -> list[list[str]]:
    """Return headings and a row a method; columns of which nothing is known are left out."""
    columns = [[heading, *(cell(method) for method in comparison["methods"])] for heading, cell in COLUMNS]
    return [list(row) for row in zip(*(c for c in columns if set(c[1:]) != {"-"}), strict=True)]


def failures(comparison: Record) -> list[str]:
    """Return a line for every run that failed."""
    return [
        f"{method['method']}, seed {seed}: {reason}"
        for method in comparison["methods"]
        for seed, reason in method["failed"].items()
    ]


def _measured(name: str, form: str, factor: float = 1.0) -> Callable[[Record], str]:
    def cell(method: Record) -> str:
        value = method[name]
        if value is None:
            return "-"
        spread = "" if value["spread"] is None else f" ± {factor * value['spread']:{form}}"
        return f"{factor * value['mean']:{form}}{spread}"

    return cell


def _between(name: str) -> Callable[[Record], str]:
    """Return the cell of what only several groups have."""
    cell = _measured(name, ".2g")
    return lambda method: cell(method) if method["groups"] > 1 else "-"


def _mean(name: str, form: str, factor: float) -> Callable[[Record], str]:
    """Return the cell of what is the same for all seeds, but for what is drawn; "-" where there is none of it."""

    def cell(method: Record) -> str:
        value = method[name]
        return f"{factor * value['mean']:{form}}" if value and value["mean"] else "-"

    return cell


def _per_stage(name: str, form: str, factor: float = 1.0) -> Callable[[Record], str]:
    def cell(method: Record) -> str:
        shown = ["-" if value is None else f"{factor * value:{form}}" for value in method[name]]
        return ", ".join(shown) if set(shown) - {"-"} else "-"

    return cell


def _runs(method: Record) -> str:
    failed = f", {len(method['failed'])} failed" if method["failed"] else ""
    return f"{len(method['finished'])} of {method['runs']}{failed}"


NUMBERS = (
    "test_accuracy",
    "test_loss",
    "train_loss",
    "consensus_distance",
    "js_distance",
    "bytes_per_sample",
    "samples_per_second",
)
"""What is averaged over seeds, as summaries name it."""

COLUMNS: tuple[tuple[str, Callable[[Record], str]], ...] = (
    ("method", lambda method: str(method["method"])),
    ("S x K", lambda method: f"{method['groups']} x {method['stages']}"),
    ("test accuracy, %", _measured("test_accuracy", ".2f", 100)),
    ("test loss", _measured("test_loss", ".3f")),
    ("training loss", _measured("train_loss", ".3f")),
    ("consensus distance", _between("consensus_distance")),
    ("JS distance", _between("js_distance")),
    ("staleness per stage, at most", _per_stage("staleness", "g")),
    ("gap per stage", _per_stage("gap", ".2g")),
    ("memory held per stage, MB", _per_stage("held", ".2f", 1e-6)),
    ("kB sent a sample", _mean("bytes_per_sample", ".4g", 1e-3)),
    ("samples/s", _measured("samples_per_second", ".0f")),
    ("runs", _runs),
)
"""Heading, and what to write of a method."""


def _markdown(comparison: Record) -> str:
    headings, *rows = table(comparison)
    lines = [" | ".join(row) for row in (headings, ["---"] * len(headings), *rows)]
    failed = [f"* failed: {line}" for line in failures(comparison)]
    parts = [
        f"# {comparison['title']}",
        "Mean over seeds, ± sample standard deviation where there are several.",
        "\n".join(f"| {line} |" for line in lines),
        *(["\n".join(failed)] if failed else []),
        f"![{comparison['curve']} over epochs](comparison.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _plot(comparison: Record, path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, method in enumerate(comparison["methods"]):
        points = comparison["curves"].get(method["method"])
        if not points:
            continue
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
        epochs, mean, low, high = zip(*(point.values() for point in points), strict=True)
        marker = "o" if len(points) < 20 else ""
        axes.plot(epochs, mean, style, color=colour, marker=marker, markersize=3, label=_label(method))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(title=comparison["title"], xlabel="epoch", ylabel=comparison["curve"])
    axes.grid(alpha=0.3)
    if comparison["curve"].endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if comparison["curves"]:
        figure.legend(loc="outside right upper", title="mean and range\nover seeds", frameon=False)
    figure.savefig(path, dpi=150, format="png")


def _label(method: Record) -> str:
    name = f"{method['method']} ({method['groups']} x {method['stages']})"
    return name if len(method["finished"]) == method["runs"] else f"{name}\nruns: {_runs(method)}"


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind people tell apart, without the yellow that white swallows."""

STYLES = ("-", "--", "-.", ":")
"""Of lines; where curves coincide, the lower one shows through the gaps."""
