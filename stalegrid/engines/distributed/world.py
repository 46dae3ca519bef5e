"""Who lives where: processes, devices, and the channel of every edge.

Does not know: what agents compute, when they step.

CPU tensors travel over Gloo.  GPU tensors travel over NCCL where both processes have a GPU of their own, else over Gloo
through pinned host memory.  NCCL ignores tags, so each of its edges has a process group of its own.  The NCCL path has
not been run by the authors yet.
"""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from stalegrid.engines.distributed import talk
from stalegrid.engines.distributed.channels import Link
from stalegrid.engines.distributed.wire import Wire
from stalegrid.errors import ConfigError
from stalegrid.programs import ASKED, OBSERVER, Agenda, Edge, Layout, Unit

_PLACE = 1024  # bytes

Home = dict[Unit, int]
"""Rank of the process in which each agent lives."""


def homes(program: Agenda, size: int, *, spare: bool) -> Home:
    """Share agents among processes: equal runs of units in canonical order.

    Args:
        program: whose agents.
        size: number of processes.
        spare: whether the last process is the observer's alone; else the observer lives in the first.

    Raises:
        ConfigError: the units do not divide equally.
    """
    units = program.units
    workers = size - spare
    if workers < 1 or len(units) % workers:
        raise ConfigError(
            f"{len(units)} units cannot be shared equally by {workers} processes (units: {units[0]} to {units[-1]}); "
            f"use a number of processes that divides {len(units)}"
        )
    each = len(units) // workers
    home = {unit: i // each for i, unit in enumerate(units)}
    if program.watch is not None:
        # A launcher's processes are counted by the user, for units; there the observer shares one.
        home[OBSERVER] = size - 1 if spare else 0
    return home


@dataclass(frozen=True)
class World:
    """One process among all.

    Args:
        rank: of this process.
        home: where every agent lives.
        device: of this process.
        places: (host, device) of every rank.
    """

    rank: int
    home: Home
    device: torch.device
    places: tuple[tuple[str, str], ...]

    @property
    def here(self) -> list[Unit]:
        """Return the agents of this process, in canonical order."""
        return [unit for unit, rank in self.home.items() if rank == self.rank]

    def links(
        self, program: Agenda, layouts: Callable[[Edge], tuple[Layout, ...]]
    ) -> tuple[dict[Edge, Link], dict[Edge, Link]]:
        """Return this process's incoming and outgoing links; every process must call this at the same time."""
        incoming: dict[Edge, Link] = {}
        outgoing: dict[Edge, Link] = {}
        edges = (edge for agent in program.agents for edge in program.inbound(agent))
        for number, edge in enumerate(edges):
            source, target = self.home[edge.source], self.home[edge.target]
            if source == target:
                continue
            direct = self._direct(edge)
            # All processes make every group, in the same order, their own or not: so torch wants it.
            group: Any = dist.new_group([source, target], backend="nccl") if direct else None
            for mine, peer, links in ((target, source, incoming), (source, target, outgoing)):
                if mine == self.rank:
                    tag = 0 if direct else number
                    links[edge] = Link(edge, Wire(*layouts(edge)), peer, group, tag, not direct, self.device)
        return incoming, outgoing

    def elsewhere(self, names: Iterable[str]) -> str:
        """Say for the end of an error on which other hosts agents are; nothing of those on this one."""
        known = {str(unit): rank for unit, rank in self.home.items()}
        here = self.places[self.rank][0]
        ranks = sorted({known[name] for name in names if name in known and self.places[known[name]][0] != here})
        return "".join(f"; process {rank} is on host {self.places[rank][0]}" for rank in ranks)

    def _direct(self, edge: Edge) -> bool:
        # Reports and verdicts are made on the CPU, by units on a GPU too.
        if OBSERVER in (edge.source, edge.target) or edge.name == ASKED:
            return False
        source, target = self.places[self.home[edge.source]], self.places[self.home[edge.target]]
        return source != target and "cpu" not in (source[1], target[1])


def enter(home: Home, device: torch.device, patience: float) -> World:
    """Learn where every process is; the default process group must exist.

    Args:
        home: rank of every unit.
        device: of this process.
        patience: seconds that a process may be silent.
    """
    told = talk.gather(lambda: f"{device} {socket.gethostname()}".encode(), patience, _PLACE)
    places = [place.decode(errors="replace").split(" ", 1) for place in told]
    return World(dist.get_rank(), home, device, tuple((host, device) for device, host in places))
