"""Four hosts, 20 ms from each other, joined by links of 100 Mbit/s: samples a second of devices that sleep.

A device takes 20 ms for the forward of a batch and 40 ms for its backward, and has two of eight layers with 1.6 million
parameters in all.  Devices sleep, so what is shown is what delay and speed of the links cost, and not the processors of
this machine, which four hosts share.  Once a batch has 262 kB between two layers, so that devices are the limit of a
pipeline, and once 1 MB, so that links are.
"""

import json
from collections.abc import Callable
from functools import partial

from benchmarks.hosts import Host, hosts
from benchmarks.measure import Figures, Ratio, Row, best, ratio, together
from benchmarks.peers.start import on_hosts
from benchmarks.workloads import BACKWARD, FAR, FAR_WIDTHS, FORWARD, SLEPT

MBIT, DELAY = 100, 20
"""Of every link, Mbit/s; and ms from any host to any other."""

GOAL = 0.9

LIMITS = {"far-sleepers": "devices", "far-sleepers-wide": "links"}
"""What a pipeline cannot be faster than, by workload."""

AHEAD = {"far-sleepers": (3, 4), "far-sleepers-wide": (2, 4)}
"""Batches by which a stage runs ahead of the next one: as ``stalegrid plan`` says, and more.

Plans take what arrives at a host for free.  Both neighbours of an inner host may send to it at once, each then at half
the speed of its own link: likely why links that are the limit were seen to be fuller with more batches under way.
"""

UPDATES, PEER_UPDATES = 100, 20
HOOKS = {"DDP": "", "DDP, float16 messages": "half", "DDP, PowerSGD": "power"}
PERIODS = (8, 32, 128)
"""Updates from one averaging to the next one; five of them are made, the first of which is not timed."""

SCHEDULES = {1: ("GPipe:4", "GPipe:8", "1F1B:4", "1F1B:8"), 2: ("Interleaved1F1B:4", "Interleaved1F1B:8")}
"""By the parts of the model that a device has."""

IDEAL, BEST = "ideal", "best torch pipeline"
NARROW = "far-sleepers"
"""What is trained by those who send parameters and no activations."""

_SEGMENT, _FRAME = 1448, 1514
"""Bytes of content in a full packet of TCP, and all that it occupies a link with."""


def run(turns: int) -> Row:
    """Measure samples a second."""
    with hosts(FAR, MBIT, DELAY) as network:
        figures = together(_parts(network), turns)
    return _row(figures)


def ideal(workload: str) -> float:
    """Return the seconds of an update that no pipeline of four equal devices can be below.

    Either a device computes all the time, or an inner host's link is full: it carries the activations of a batch to the
    next host and as many gradients to the one before, in packets with headers.

    Args:
        workload: by name.
    """
    content = 2 * 4 * FAR_WIDTHS[workload] * SLEPT
    return max(FORWARD + BACKWARD, content * _FRAME / _SEGMENT * 8 / (MBIT * 1e6))


def staleness(ahead: int) -> list[int]:
    """Return that of every stage, where each runs so many batches ahead of the next one."""
    return [ahead * (FAR - 1 - k) for k in range(FAR)]


def _row(figures: Figures) -> Row:
    turns = max(map(len, figures.values()))
    ratios: list[Ratio] = []
    for workload in AHEAD:
        limit, fastest = _named(workload, IDEAL), _named(workload, BEST)
        figures[limit] = [SLEPT / ideal(workload)] * turns
        figures[fastest] = best(figures, [name for name in figures if name.startswith(_torch(workload, ""))], max)
        for ahead in AHEAD[workload]:
            ours = _named(workload, _ahead(ahead))
            ratios += [ratio(figures, ours, limit, at_least=GOAL), ratio(figures, ours, fastest)]
    ours = _named(NARROW, _ahead(AHEAD[NARROW][0]))
    peers = [_named(NARROW, name) for name in (*HOOKS, *map(_local, PERIODS))]
    note = f"{MBIT} Mbit/s, {DELAY} ms from host to host; ideal are {SLEPT} samples in the time that the limit needs"
    return Row(figures, [*ratios, *(ratio(figures, ours, peer) for peer in peers)], [note])


def _parts(network: list[Host]) -> dict[str, Callable[[], dict[str, float]]]:
    ours = [(workload, ahead) for workload, several in AHEAD.items() for ahead in several]
    pipelines = [(workload, parts) for workload in AHEAD for parts in (1, 2)]
    return {
        **{f"{work}, {ahead}": partial(_grid, network, work, ahead) for work, ahead in ours},
        **{f"{work}, torch, {parts}": partial(_pipelines, network, work, parts) for work, parts in pipelines},
        **{
            name: partial(_parameters, network, name, "data_parallel", PEER_UPDATES, hook)
            for name, hook in HOOKS.items()
        },
        **{
            _local(every): partial(_parameters, network, _local(every), "local", 5 * every, every, "mean")
            for every in PERIODS
        },
    }


def _grid(network: list[Host], workload: str, ahead: int) -> dict[str, float]:
    settings = {"groups": 1, "stages": FAR, "batch_size": SLEPT, "staleness": staleness(ahead), "cuts": _cuts(1)}
    found = on_hosts(network, "grid", workload, UPDATES, json.dumps(settings))
    return {_named(workload, _ahead(ahead)): SLEPT / found["seconds"]}


def _pipelines(network: list[Host], workload: str, parts: int) -> dict[str, float]:
    cuts = ",".join(_cuts(parts))
    found = on_hosts(network, "pipelining", workload, SLEPT, PEER_UPDATES, cuts, *SCHEDULES[parts])
    return {f"{_torch(workload, name)}, samples/s": SLEPT / seconds for name, seconds in found.items()}


def _parameters(network: list[Host], name: str, peer: str, updates: int, *options: object) -> dict[str, float]:
    found = on_hosts(network, peer, NARROW, SLEPT, updates, *options)
    return {_named(NARROW, name): SLEPT / found["seconds"]}


def _cuts(parts: int) -> list[str]:
    """Return the layers that begin the later parts of a model of which each device has so many."""
    return [str(layer) for layer in range(2 // parts, 2 * FAR, 2 // parts)]


def _named(workload: str, name: str) -> str:
    return f"limited by {LIMITS[workload]}: {name}, samples/s"


def _torch(workload: str, schedule: str) -> str:
    return f"limited by {LIMITS[workload]}: torch {schedule.replace(':', ' M=')}"


def _ahead(ahead: int) -> str:
    return f"m = {ahead} (K-1-k)"


def _local(every: int) -> str:
    return f"local SGD every {every}"
