"""Staleness and speed of 30 learners in virtual time.

``python -m benchmarks.learners COSTS``: COSTS is what ``stalegrid profile`` wrote for the model and the batch of one
gradient.  Speed-up is over one undisturbed learner that computes and updates without a server, for the same samples.
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
from stalegrid.programs.serving import Ordered, Served, in_turn
from stalegrid.programs.softsync import Delivery, Rules
from stalegrid.timing.arrivals import ServedTimes, drawn, lasting
from stalegrid.timing.costs import NANOSECONDS, CostTable

LEARNERS, GRADIENTS = 30, 30_000
SPLITS = (1, 15, 30)
EQUAL = "equal, jitter sigma 0.1"
DEVICES: dict[str, dict[str, Any]] = {
    EQUAL: {"jitter": 0.1},
    "equal, no jitter": {},
    "equal, jitter sigma 0.5": {"jitter": 0.5},
    "equal, jitter sigma 1": {"jitter": 1.0},
    "1 % of actions stall for 100 ms": {"stalls": [0.01, 100.0]},
    "one learner 3 times as slow": {"jitter": 0.1, "slow": "0,0=3"},
    "half of the learners 3 times as slow": {"jitter": 0.1, "slow": ";".join(f"{number},0=3" for number in range(15))},
}
FAST, PLAIN = [0.01, 100_000.0], [0.1, 10_000.0]
"""ms and Mbit/s of every device's port."""


def main() -> None:
    """Print a table for every kind of devices, on two networks, with one server and with four."""
    costs = CostTable.read(Path(sys.argv[1]))
    free = dataclasses.replace(costs, handling=0.0)
    for name, more in DEVICES.items():
        _show(f"{name}; 0.01 ms, 100 Gbit/s, messages cost no processor time", free, {"link": FAST, **more}, 1)
    for servers in (1, 4):
        link = {"link": PLAIN, **DEVICES[EQUAL]}
        _show(
            f"{EQUAL}; 0.1 ms, 10 Gbit/s, messages cost what they cost here; servers: {servers}", costs, link, servers
        )


def _show(title: str, costs: CostTable, more: dict[str, Any], servers: int) -> None:
    shown = Table("rule", "mean tau", "largest", "share above 2n", "samples/s", "speed-up", title=title)
    times = _times(costs, more, servers)
    alone = costs.batch_size / _alone(times)
    for splits in (None, *SPLITS):
        program = _program(splits, times, servers)
        rate = costs.batch_size * GRADIENTS * 1000 * NANOSECONDS / lasting(program, times)
        cells = _staleness(program.order, splits or 1, program.rules.gather) if splits else ("0", "0", "0")
        shown.add_row(f"n = {splits}" if splits else "hardsync", *cells, f"{rate:.0f}", f"{rate / alone:.1f}")
    Console(width=100).print(shown)


def _times(costs: CostTable, more: dict[str, Any], servers: int) -> ServedTimes:
    training = TrainingSettings(batch_size=costs.batch_size)
    devices, _ = settle_devices(DeviceSettings(**more), Grid(LEARNERS, 1), None, training, costs, virtual=True)
    assert devices.costs is not None
    size = devices.costs[0].parameters // servers

    def nbytes(edge: Edge) -> int:
        return size if edge.name in ("push", "weights") else 0

    return ServedTimes(devices.costs, 1, devices.handling, nbytes, devices.disturbances, (1 / servers,) * servers)


def _alone(times: ServedTimes) -> float:
    """Return the seconds of a batch on one undisturbed device."""
    cost = times.stages[0]
    return (cost.forward + cost.backward + cost.update) / 1000


def _program(splits: int | None, times: ServedTimes, servers: int) -> Ordered:
    rules = Rules(LEARNERS, LEARNERS // (splits or 1), None if splits else 0)
    updates = GRADIENTS // rules.gather
    order = drawn(Served(rules, servers, updates), times) if splits else in_turn(rules, updates)
    return Ordered(rules, servers, updates, None, order)


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
