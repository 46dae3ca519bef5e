"""Throughput and accuracy of four ways to use four devices, undisturbed and under the same stragglers.

``python -m benchmarks.stragglers COSTS RUNS``: COSTS is what ``stalegrid profile`` wrote for ResNet-20 and batches of
128; RUNS holds the folders of four finished runs, named as in ``WAYS``.  Virtual time changes no number that training
computes, so one run of each serves for every disturbance: its accuracy, and the virtual time of its updates.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stalegrid import DeviceSettings, MixingSettings, TrainingSettings
from stalegrid.consensus.choose import choose_mixing, turns_of
from stalegrid.methods.choose import find_grid, schedule
from stalegrid.plans.devices import settle_devices
from stalegrid.programs.grid import Grid
from stalegrid.programs.pipeline import Program
from stalegrid.stages.views.named import find_view
from stalegrid.timing.costs import CostTable
from stalegrid.timing.estimating import Estimate, estimate

UPDATES = 1950
ENOUGH = 0.70
"""Test accuracy, time to which is told."""


@dataclass(frozen=True)
class Way:
    """One way to use the devices.

    Args:
        method: by name.
        groups: S.
        stages: K.
        cuts: where stages begin.
        batch_size: samples of a group in an update; 128 for all groups together.
        slow: the unit that may be slow.
        link: the one that may be down.
    """

    method: str
    groups: int
    stages: int
    cuts: tuple[str, ...]
    batch_size: int
    slow: str
    link: str


FOUR = ("4.conv1", "5.bn2", "8.bn1")
WAYS = {
    "allreduce": Way("data-parallel", 4, 1, (), 32, "1,0", "1,0>2,0"),
    "1f1b": Way("1f1b", 1, 4, FOUR, 128, "0,1", "0,1>0,2"),
    "dsp": Way("dsp", 1, 4, FOUR, 128, "0,1", "0,1>0,2"),
    "grid": Way("pham-ahn", 2, 2, ("5.bn2",), 64, "0,1", "0,0>0,1"),
}
NETWORK: dict[str, Any] = {"link": [0.1, 10_000.0], "lateral_link": [0.1, 10_000.0]}
"""0.1 ms and 10 Gbit/s from every device."""

NONE = "none"
DISTURBANCES: dict[str, Callable[[Way], dict[str, Any]]] = {
    NONE: lambda way: {},
    "one device 3 times as slow": lambda way: {"slow": f"{way.slow}=3"},
    "jitter, sigma 0.5": lambda way: {"jitter": 0.5},
    "1 % of actions stall for 1 s": lambda way: {"stalls": [0.01, 1000.0]},
    "a link down for 60 s": lambda way: {"outages": f"{way.link}@60000-120000"},
}


def main() -> None:
    """Print one table a disturbance."""
    costs, runs = CostTable.read(Path(sys.argv[1])), Path(sys.argv[2])
    heads = ("way", "samples/s", "of undisturbed", "5 epochs, s", f"s to {ENOUGH:.0%}", "test accuracy")
    for name in DISTURBANCES:
        shown = Table(*heads, title=name)
        for key, way in WAYS.items():
            usual, made = _estimate(costs, way, NONE), _estimate(costs, way, name)
            rate = 1000 * 128 * len(made.updated) / made.total
            cells = (f"{rate:.0f}", f"{usual.total / made.total:.0%}", f"{made.total / 1000:.0f}")
            shown.add_row(key, *cells, *_accuracy(runs / key, made))
        Console(width=110).print(shown)


def _estimate(costs: CostTable, way: Way, disturbance: str) -> Estimate:
    more: dict[str, Any] = DISTURBANCES[disturbance](way)
    grid, method = Grid(way.groups, way.stages), find_grid(way.method)
    view, asked, usual = find_view(method.view), DeviceSettings(**NETWORK, **more), MixingSettings()
    training = TrainingSettings(batch_size=way.batch_size)
    devices, _ = settle_devices(asked, grid, list(way.cuts), training, costs, virtual=True)
    mixing = choose_mixing(usual, method.mixing, method.name, grid.groups)
    lateral = mixing.lateral(turns_of(usual, grid.groups, UPDATES))
    pipeline = schedule(method, grid.stages, None, None, method.micro_batches, view.delay)
    program = Program(grid, pipeline, UPDATES, lateral, recompute=view.recomputes)
    return estimate(program, devices.time_model(program))


def _accuracy(folder: Path, made: Estimate) -> tuple[str, str]:
    """Return the virtual seconds to enough accuracy, and the accuracy at the end."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tests = [line for line in lines if line["kind"] == "test"]
    first = next((t["version"] for t in tests if t["test_accuracy"] >= ENOUGH), None)
    seconds = "never" if first is None else f"{made.updated[first - 1] / 1000:.0f}"
    return seconds, f"{tests[-1]['test_accuracy']:.2%}"


if __name__ == "__main__":
    main()
