"""Whether hosts reach each other, how late and how fast, and whether their clocks agree.

Does not know: how it was measured.
"""

from collections.abc import Mapping

from stalegrid.doctor.rows import Hosts, Row
from stalegrid.engines import Link

SHOWN = 12
"""Pairs of hosts that are listed, the slowest ones first."""

APART = 0.1
"""Seconds by which clocks may be apart."""

Links = Mapping[tuple[int, int], Link | str]


def rows(hosts: Hosts, links: Links) -> list[Row]:
    """Judge the ways between hosts."""
    if not links:
        return []
    there = {pair: link for pair, link in links.items() if isinstance(link, Link)}
    return [_ways(hosts, links, there), *([_clocks(hosts, there)] if there else [])]


def _ways(hosts: Hosts, links: Links, there: dict[tuple[int, int], Link]) -> Row:
    slowest = sorted(there, key=lambda pair: there[pair].bandwidth)
    lines = [
        f"{hosts[a].name} -> {hosts[b].name}: {there[a, b].latency:.3g} ms, {there[a, b].bandwidth:,.4g} Mbit/s"
        for a, b in slowest[:SHOWN]
    ]
    if len(slowest) > SHOWN:
        lines.append(f"and {len(slowest) - SHOWN} more, all faster")
    broken = {pair: why for pair, why in links.items() if isinstance(why, str)}
    lines += [f"{hosts[a].name} -> {hosts[b].name}: none ({why})" for (a, b), why in broken.items()]
    needed = tuple(
        f"{hosts[a].name}: no way to {hosts[b].name} at {hosts[b].told['address']} ({why}); let firewalls and security "
        f"groups pass TCP to the ports {hosts[b].told['ports']} there, or name another interface in GLOO_SOCKET_IFNAME"
        for (a, b), why in broken.items()
    )
    return Row("ways", "\n".join(lines), needed)


def _clocks(hosts: Hosts, there: dict[tuple[int, int], Link]) -> Row:
    # A measured difference is wrong by half of what a question and its answer take at most.
    apart = {pair: link.ahead for pair, link in there.items() if abs(link.ahead) > APART + link.latency / 1000}
    most = max((abs(link.ahead) for link in there.values()), default=0.0)
    advised = tuple(
        f"{hosts[b].name}: its clock is {abs(ahead):.3g} s {'ahead of' if ahead > 0 else 'behind'} that of "
        f"{hosts[a].name}, and so are its times in traces; let a time service (NTP) set both"
        for (a, b), ahead in apart.items()
        if a < b
    )
    return Row("clocks", f"at most {most:.2g} s apart", advised=advised)
