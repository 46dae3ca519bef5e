"""How figures are taken: competitors in turn, A B A B, and ratios turn by turn.

Does not know: what is measured.
"""

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

THREADS = 1
"""Of every process; a figure for which there are more is named after them."""

Figures = dict[str, list[float]]
"""Each competitor's figures, by turn; a name ends with its unit."""


_TOLERATED = 0.05
"""Share of the processors' time that other virtual machines may take during a measurement."""

_ATTEMPTS = 2


class Skipped(Exception):
    """A row cannot be taken here, and why."""


@dataclass(frozen=True)
class Ratio:
    """How often one figure goes into another, turn by turn.

    Args:
        what: numerator over denominator.
        values: by turn.
        at_least: goal for the median, 0 for none.
        at_most: goal for the median, infinity for none.
    """

    what: str
    values: tuple[float, ...]
    at_least: float = 0.0
    at_most: float = float("inf")

    @property
    def median(self) -> float:
        """Return the middle ratio."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        """Return whether the median is where it should be; None without a goal."""
        return self.at_least <= self.median <= self.at_most if self.goal else None

    @property
    def goal(self) -> str:
        """Return the goal in words; nothing where there is none."""
        bounded = self.at_most < float("inf")
        if self.at_least and bounded:
            return f"{self.at_least:g} to {self.at_most:g}"
        return f">= {self.at_least:g}" if self.at_least else f"<= {self.at_most:g}" if bounded else ""


@dataclass(frozen=True)
class Row:
    """What one benchmark found.

    Args:
        figures: of every competitor.
        ratios: of some over others.
        notes: what a reader must know to read them.
    """

    figures: Figures
    ratios: list[Ratio]
    notes: list[str] = field(default_factory=list)


def interleave(competitors: Mapping[str, Callable[[], float]], turns: int) -> Figures:
    """Measure each competitor once a turn, in the same order every time.

    Args:
        competitors: name -> what measures it.
        turns: at least 5 for a figure that is published.
    """
    return together({name: partial(_named, name, measure) for name, measure in competitors.items()}, turns)


def _named(name: str, measure: Callable[[], float]) -> dict[str, float]:
    return {name: measure()}


def together(parts: Mapping[str, Callable[[], Mapping[str, float]]], turns: int) -> Figures:
    """Measure competitors of which several are measured by one start of processes, once a turn.

    Args:
        parts: what measures: name -> figure of each competitor in it.
        turns: at least 5 for a figure that is published.
    """
    figures: Figures = {}
    for _ in range(turns):
        for measure in parts.values():
            for name, value in _undisturbed(measure).items():
                figures.setdefault(name, []).append(value)
    return figures


def _undisturbed(measure: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    """Measure, again where the machine below this one took the processors away meanwhile."""
    for _ in range(_ATTEMPTS):
        stolen, ticks = _ticks()
        found = measure()
        now_stolen, now_ticks = _ticks()
        if now_stolen - stolen <= _TOLERATED * (now_ticks - ticks):
            break
    return found


def _ticks() -> tuple[int, int]:
    """Return the ticks of all processors that were stolen, and all; zeros where nobody counts them."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]  # user to steal
    except OSError:
        return 0, 0
    return ticks[-1], sum(ticks)


def ratio(figures: Figures, over: str, under: str, *, at_least: float = 0.0, at_most: float = float("inf")) -> Ratio:
    """Compare two competitors turn by turn.

    Args:
        figures: of all competitors.
        over: numerator.
        under: denominator.
        at_least: goal for the median, 0 for none.
        at_most: goal for the median, infinity for none.
    """
    values = tuple(a / b for a, b in zip(figures[over], figures[under], strict=True))
    return Ratio(f"{over} / {under}", values, at_least, at_most)


def best(figures: Figures, names: list[str], better: Callable[[list[float]], float]) -> list[float]:
    """Return the best of several competitors, turn by turn.

    Args:
        figures: of all competitors.
        names: among which.
        better: min or max.
    """
    return [better(list(values)) for values in zip(*(figures[name] for name in names), strict=True)]


def machine() -> dict[str, Any]:
    """Describe what figures are taken on, and of which versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "threads of a process": THREADS,
        **{name: _version(name) for name in ("stalegrid", "torch", "decent-dp")},
    }


def commit_of(folder: Path) -> str:
    """Return what the code in a folder is at, with a mark where files differ from it that benchmarks do not write."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True).stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD")
    written = (":(exclude,top)*/results/*.jsonl", ":(exclude,top)benchmarks/results.json")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", *written)
    return (f"{commit}-dirty" if changed else commit) or "unknown"


def _version(distribution: str) -> str | None:
    """Return the version that is installed, if one is."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor()


def as_json(row: Row) -> dict[str, Any]:
    """Return a row as it is written to a file."""
    return {
        "machine": machine(),
        "commit": commit_of(Path(__file__).parent),
        "turns": max(map(len, row.figures.values())),
        "notes": row.notes,
        "ratios": [
            {
                "what": r.what,
                "median": r.median,
                "least": min(r.values),
                "greatest": max(r.values),
                "goal": r.goal,
                "reached": r.reached,
            }
            for r in row.ratios
        ],
        "figures": {
            name: {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
            for name, values in row.figures.items()
        },
    }
