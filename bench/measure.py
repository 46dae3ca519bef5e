"""How figures are taken: competitors in turn, A B A B, and ratios pair by pair."""

import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Ratio:
    """How often one figure goes into another, over several turns.

    Args:
        row: which benchmark.
        what: numerator over denominator.
        median: over the turns.
        low: least.
        high: greatest.
        goal: what the median should be, in words.
        reached: whether it is.
        figures: median of each competitor, with its unit in its name.
    """

    row: str
    what: str
    median: float
    low: float
    high: float
    goal: str
    reached: bool
    figures: dict[str, float]


def interleave(competitors: dict[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """Measure each competitor once a turn, in the same order every time.

    Args:
        competitors: name -> what measures it.
        turns: at least 5 for a figure that is published.

    Returns:
        Each competitor's figures, by turn.
    """
    figures: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(turns):
        for name, measure in competitors.items():
            figures[name].append(measure())
    return figures


def ratio(row: str, figures: dict[str, list[float]], over: str, under: str, at_least: float, at_most: float) -> Ratio:
    """Compare two competitors turn by turn.

    Args:
        row: which benchmark.
        figures: of all its competitors.
        over: numerator.
        under: denominator.
        at_least: goal for the median, 0 for none.
        at_most: goal for the median, infinity for none.
    """
    ratios = [a / b for a, b in zip(figures[over], figures[under], strict=True)]
    middle = statistics.median(ratios)
    both = at_least and at_most < float("inf")
    goal = f"{at_least:g} to {at_most:g}" if both else f">= {at_least:g}" if at_least else f"<= {at_most:g}"
    medians = {name: statistics.median(values) for name, values in figures.items()}
    reached = at_least <= middle <= at_most
    return Ratio(row, f"{over} / {under}", middle, min(ratios), max(ratios), goal, reached, medians)


def machine() -> dict[str, Any]:
    """Describe what the figures were taken on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads_per_process": 1,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor()


def as_json(ratios: list[Ratio]) -> dict[str, Any]:
    """Return results as they are written to a file."""
    return {"machine": machine(), "ratios": [asdict(r) for r in ratios]}
