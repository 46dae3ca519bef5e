"""Staleness of 30 learners in virtual time, without tensors.

``python -m benchmarks.learners COSTS``: COSTS is what ``stalegrid profile`` wrote for the model and the batch of one
gradient.  The network is fast, and messages cost no processor time.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stalegrid import DeviceSettings, TrainingSettings
from stalegrid.plans.devices import settle_devices
from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import Grid
from stalegrid.programs.serving import Served
from stalegrid.programs.softsync import Delivery, Rules
from stalegrid.timing.arrivals import ServedTimes, drawn
from stalegrid.timing.costs import CostTable

LEARNERS, GRADIENTS = 30, 30_000
SPLITS = (1, 15, 30)
DEVICES: dict[str, dict[str, Any]] = {
    "equal, jitter sigma 0.1": {"jitter": 0.1},
    "equal, no jitter": {},
    "equal, jitter sigma 0.5": {"jitter": 0.5},
    "equal, jitter sigma 1": {"jitter": 1.0},
    "1 % of actions stall for 100 ms": {"stalls": [0.01, 100.0]},
    "one learner 3 times as slow": {"jitter": 0.1, "slow": "0,0=3"},
    "half of the learners 3 times as slow": {"jitter": 0.1, "slow": ";".join(f"{number},0=3" for number in range(15))},
}
FAST = [0.01, 100_000.0]
"""ms and Mbit/s of every device's port."""


def main() -> None:
    """Print a table for every kind of devices."""
    costs = dataclasses.replace(CostTable.read(Path(sys.argv[1])), handling=0.0)
    for name, more in DEVICES.items():
        _show(name, _times(costs, more))


def _show(title: str, times: ServedTimes) -> None:
    shown = Table("rule", "mean tau", "largest", "share above 2n", title=title)
    for splits in SPLITS:
        rules = Rules(LEARNERS, LEARNERS // splits)
        order = drawn(Served(rules, 1, GRADIENTS // rules.gather), times)
        shown.add_row(f"n = {splits}", *_staleness(order, splits, rules.gather))
    Console(width=100).print(shown)


def _times(costs: CostTable, more: dict[str, Any]) -> ServedTimes:
    training, settings = TrainingSettings(batch_size=costs.batch_size), DeviceSettings(link=FAST, **more)
    devices, _ = settle_devices(settings, Grid(LEARNERS, 1), None, training, costs, virtual=True)
    assert devices.costs is not None
    size = devices.costs[0].parameters

    def nbytes(edge: Edge) -> int:
        return size if edge.name in ("push", "weights") else 0

    return ServedTimes(devices.costs, 1, devices.handling, nbytes, devices.disturbances)


def _staleness(order: Sequence[Delivery], splits: int, gather: int) -> tuple[str, str, str]:
    given = [0] * LEARNERS
    taus = []
    for number, delivery in enumerate(order):
        taus.append(number // gather - given[delivery.learner])
        given[delivery.learner] = (number + 1) // gather
    above = sum(tau > 2 * splits for tau in taus) / len(taus)
    return f"{sum(taus) / len(taus):.2f}", str(max(taus)), f"{above:.1e}" if above else "0"


if __name__ == "__main__":
    main()
