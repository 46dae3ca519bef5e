"""Looks at the hosts of a run, under a launcher at all of them, else at this one, and judges what is found.

Does not know: what is looked at, how it is shown.
"""

from dataclasses import dataclass

from stalegrid.doctor import gpus, network, room, software, trained, ways
from stalegrid.doctor.rows import Row
from stalegrid.engines import Greeting, Survey, survey, survey_alone, torchrun
from stalegrid.observe import Record


@dataclass(frozen=True)
class Examined:
    """What was found.

    Args:
        rank: of this process.
        hosts: how many there are.
        rows: what was looked at.
    """

    rank: int
    hosts: int
    rows: list[Row]

    @property
    def fine(self) -> bool:
        """Whether nothing has to be changed."""
        return not any(row.needed for row in self.rows)


def examine(deadline: float, make: trained.Making | None = None) -> Examined:
    """Look at the hosts and judge them.

    Args:
        deadline: seconds in which another process has to give a sign.
        make: makes what is to be trained; None where that is not looked at.

    Returns:
        The same in every process.

    Raises:
        ConfigError: what a launcher says cannot be, or this host has no loopback interface.
        DeadlineExceeded: a process did not come, or is silent.
        EngineError: processes cannot meet.
    """

    def look(greeting: Greeting, drawn: bytes) -> Record:
        return {
            "software": software.look(greeting),
            "network": network.look(greeting, drawn),
            "room": room.look(),
            "gpus": gpus.look(),
            "trained": trained.look(make),
        }

    rank, found = survey(deadline, look) if torchrun.active() else (0, survey_alone(look))
    return Examined(rank, len(found.hosts), _rows(found))


def _rows(found: Survey) -> list[Row]:
    hosts = found.hosts
    return [
        *software.rows([host.of("software") for host in hosts]),
        *trained.rows([host.of("trained") for host in hosts]),
        *network.rows([host.of("network") for host in hosts]),
        *ways.rows([host.of("network") for host in hosts], found.links),
        *room.rows([host.of("room") for host in hosts]),
        *gpus.rows([host.of("gpus") for host in hosts]),
    ]
