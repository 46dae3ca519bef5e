"""Four hosts joined by links of 100 Mbit/s train a model of 5.5 million parameters.

The hosts are network namespaces of this machine, so they share its processors: what is shown is what the links cost.
"""

import json
from functools import partial
from typing import Any

from benchmarks.hosts import Host, hosts
from benchmarks.measure import Figures, Ratio, Row, ratio, together
from benchmarks.peers.start import on_hosts
from benchmarks.workloads import WORKLOADS

HOSTS, MBIT = 4, 100
WORKLOAD, PEER_UPDATES = "wide", 5
UPDATES = {1: 6, 4: 12, 16: 32}
"""Timed for a figure, by mixing period: whole periods."""

DDP, PIPELINE = "DDP", f"K={HOSTS} pipeline"

HALVED, CUTS = "wide-halved", ["2", "5", "8"]
"""The same model with bfloat16 between its four parts."""


def run(turns: int) -> Row:
    """Measure samples a second and the bytes sent for a sample."""
    ddp_halved, halved = f"{DDP}, float16 messages", f"{PIPELINE}, bfloat16 messages"
    with hosts(HOSTS, MBIT) as network:
        parts = {
            DDP: partial(_ddp, network, DDP),
            ddp_halved: partial(_ddp, network, ddp_halved, "half"),
            PIPELINE: partial(_grid, network, PIPELINE, groups=1, stages=HOSTS),
            halved: partial(_grid, network, halved, HALVED, groups=1, stages=HOSTS, cuts=CUTS),
            **{
                name: partial(_grid, network, name, groups=2, stages=2, period=period, lag=lag)
                for period in (1, 4, 16)
                for lag in (0, 1)
                for name in [f"S=2 K=2, mixing every {period}, lag {lag}"]
            },
        }
        figures = together(parts, turns)
    return Row(figures, _ratios(figures, list(parts)))


def _ratios(figures: Figures, names: list[str]) -> list[Ratio]:
    rates, sizes = ([f"{name}, {unit}" for name in names] for unit in ("samples/s", "bytes sent/sample"))
    goals = {PIPELINE: 4.0}
    return [
        *(ratio(figures, r, rates[0], at_least=goals.get(n, 0.0)) for n, r in zip(names[1:], rates[1:], strict=True)),
        *(ratio(figures, size, sizes[0]) for size in sizes[1:]),
    ]


def _ddp(network: list[Host], name: str, *more: str) -> dict[str, float]:
    return _named(name, on_hosts(network, "data_parallel", WORKLOAD, WORKLOADS[WORKLOAD].batch, PEER_UPDATES, *more))


def _grid(network: list[Host], name: str, workload: str = WORKLOAD, **settings: Any) -> dict[str, float]:
    groups = settings["groups"]
    chosen = {**settings, "batch_size": WORKLOADS[WORKLOAD].batch // groups}
    return _named(name, on_hosts(network, "grid", workload, UPDATES[settings.get("period", 16)], json.dumps(chosen)))


def _named(name: str, found: dict[str, float]) -> dict[str, float]:
    batch = WORKLOADS[WORKLOAD].batch
    return {f"{name}, samples/s": batch / found["seconds"], f"{name}, bytes sent/sample": found["bytes"] / batch}
