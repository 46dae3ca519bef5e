"""What was looked at, what was found, and what should be changed.

Does not know: what is looked at.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stalegrid.engines import Surveyed

Hosts = Sequence[Surveyed]


@dataclass(frozen=True)
class Row:
    """What was found of one thing.

    Args:
        what: it is.
        found: on the hosts.
        needed: what has to be changed, or a run fails or computes something else.
        advised: what may be changed, if it matters to the user.
    """

    what: str
    found: str
    needed: tuple[str, ...] = ()
    advised: tuple[str, ...] = ()


def told(hosts: Hosts, of: Callable[[Surveyed], object]) -> str:
    """Say a value, host by host where they have several."""
    groups = grouped(hosts, of)
    if len(groups) == 1:
        return next(iter(groups))
    return "\n".join(f"{', '.join(names)}: {value}" for value, names in groups.items())


def differing(hosts: Hosts, of: Callable[[Surveyed], object], sentence: str) -> tuple[str, ...]:
    """Return a sentence, followed by what each host has, where they do not have the same; nothing where they do."""
    groups = grouped(hosts, of)
    each = "; ".join(f"{', '.join(names)}: {value}" for value, names in groups.items())
    return (f"{sentence} ({each})",) if len(groups) > 1 else ()


def at(hosts: Hosts, wrong: Callable[[Surveyed], bool], sentence: str) -> tuple[str, ...]:
    """Return a sentence that begins with the hosts where something is wrong; nothing where nothing is."""
    names = [host.name for host in hosts if wrong(host)]
    return (f"{', '.join(names)}: {sentence}",) if names else ()


def grouped(hosts: Iterable[Surveyed], of: Callable[[Surveyed], object]) -> dict[str, list[str]]:
    """Return the names of hosts by the value that they have."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        found.setdefault(str(of(host)), []).append(host.name)
    return found
