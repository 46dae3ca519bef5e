"""All rows by name: run, printed, written.

Does not know: how a row is measured.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import (
    breakdown,
    capture,
    channels_last,
    checkpoint,
    compiled,
    cpu,
    cuda,
    data,
    emulated,
    far,
    far_loss,
    frontier,
    large,
    memory,
    precision,
    precision_loss,
    prediction,
    scale,
    server,
    simulator,
    slow_link,
    softsync,
    start,
    time_to_accuracy,
    virtual,
)
from benchmarks.measure import Row, Skipped, as_json, machine
from stalegrid.errors import ConfigError

ROWS: dict[str, Callable[[int], Row]] = {
    "emulated": emulated.run,
    "scale": scale.run,
    "cpu": cpu.run,
    "breakdown": breakdown.run,
    "slow-link": slow_link.run,
    "far": far.run,
    "simulator": simulator.run,
    "memory": memory.run,
    "large": large.run,
    "cuda": cuda.run,
    "precision": precision.run,
    "compiled": compiled.run,
    "channels-last": channels_last.run,
    "frontier": frontier.run,
    "prediction": prediction.run,
    "virtual": virtual.run,
    "server": server.run,
    "softsync": softsync.run,
    "start": start.run,
    "data": data.run,
    "capture": capture.run,
    "checkpoint": checkpoint.run,
}

TRAINED: dict[str, Callable[[Path, int], Row]] = {
    "time-to-accuracy": time_to_accuracy.run,
    "far-loss": far_loss.run,
    "precision-loss": precision_loss.run,
}
"""Rows on real data, which want to know where it is."""


def bench(names: Sequence[str], turns: int, out: Path, data: Path) -> None:
    """Measure rows, print each as soon as it is there, and write it to a file whose other rows are kept.

    Args:
        names: of rows; all if empty.
        turns: how often each competitor is measured, in turn.
        out: JSON file.
        data: folder with the official files of data sets.

    Raises:
        ConfigError: there is no such row, no turn, or the file is not one of these.
    """
    rows: dict[str, Callable[[int], Row]] = {**ROWS, **{name: partial(row, data) for name, row in TRAINED.items()}}
    if unknown := set(names) - set(rows):
        raise ConfigError(f"no such row (rows: {', '.join(sorted(unknown))}); there are: {', '.join(rows)}")
    if turns < 1:
        raise ConfigError(f"each competitor is measured at least once (turns: {turns}); 5 or more make a figure")
    written = _read(out)
    for name in names or rows:
        try:
            row = rows[name](turns)
        except Skipped as reason:
            found: dict[str, Any] = {"machine": machine(), "skipped": str(reason)}
        else:
            found = as_json(row)
        show(name, found)
        written[name] = found
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(written, indent=2) + "\n")


def _read(out: Path) -> dict[str, Any]:
    if not out.exists():
        return {}
    try:
        found = json.loads(out.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(row, dict) and "machine" in row for row in found.values()):
        raise ConfigError(f"the file holds something else than results of benchmarks (out: {out}); name another one")
    return found


def show(name: str, found: dict[str, Any]) -> None:
    """Print a row as it is written."""
    console = Console(width=None if Console().is_terminal else 160)
    if "skipped" in found:
        console.print(f"{name}: skipped: {found['skipped']}", highlight=False)
        return
    turns = found["turns"]
    ratios = Table("ratio", "median", "least", "greatest", "goal", "reached", title=f"{name}, {turns} turns")
    for r in found["ratios"]:
        reached = {True: "yes", False: "NO", None: ""}[r["reached"]]
        ratios.add_row(r["what"], f"{r['median']:.3f}", f"{r['least']:.3f}", f"{r['greatest']:.3f}", r["goal"], reached)
    console.print(ratios)
    figures = Table("figure", "median", "least", "greatest")
    for what, f in found["figures"].items():
        figures.add_row(what, f"{f['median']:.4g}", f"{f['least']:.4g}", f"{f['greatest']:.4g}")
    console.print(figures)
    for note in found["notes"]:
        console.print(note, highlight=False)
