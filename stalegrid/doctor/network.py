"""Whether hosts can find each other: names, the interface on which they listen, the secret.

Does not know: how fast the ways between them are.
"""

import hmac
import os
import socket
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from stalegrid.doctor.rows import Hosts, Row, at, told
from stalegrid.engines import Greeting, given_secret
from stalegrid.errors import ConfigError
from stalegrid.observe import Record

_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_MASTER = "MASTER_ADDR"


def look(greeting: Greeting, drawn: bytes) -> Record:
    """Return what this host says of names, and a proof of the secret that tells nothing of it."""
    first, last = _PORTS.read_text().split() if _PORTS.exists() else ("1024", "65535")
    found = {
        "interface": greeting.interface,
        "address": greeting.address,
        "named": os.environ.get("GLOO_SOCKET_IFNAME", ""),
        "ports": f"{first}-{last}",
        "name": greeting.host,
        "own": _address(greeting.host),
        "master": os.environ.get(_MASTER, ""),
        "leads": _address(os.environ[_MASTER]) if _MASTER in os.environ else "",
    }
    try:
        given = given_secret()
        found["secret"] = hmac.digest(given[0], b"stalegrid doctor\n" + drawn, "sha256").hex() if given else ""
    except ConfigError as problem:
        found["unusable"] = str(problem)
    return found


def _address(name: str) -> str:
    with suppress(OSError):
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    return ""


def rows(hosts: Hosts) -> list[Row]:
    """Judge names, interfaces and secrets."""
    several = len(hosts) > 1
    own = told(hosts, lambda h: f"{h.told['name']} -> {h.told['own'] or 'nowhere'}")
    return [
        Row(
            "listens on",
            told(hosts, lambda h: f"{h.told['interface']} {h.told['address']}, ports {h.told['ports']}"),
            _apart(hosts) if several else (),
        ),
        *([_leads(hosts)] if several else []),
        Row(
            "own name",
            own,
            advised=at(
                hosts,
                lambda h: not h.told["own"] or _loops(h.told["own"]),
                "the host's own name leads to no address where others come, as torchrun's c10d rendezvous wants: "
                "there, name an address and the first host, --local-addr ADDRESS --rdzv-conf is_host=1 (elsewhere 0)",
            )
            if several
            else (),
        ),
        *([_secret(hosts)] if several else []),
    ]


def _apart(hosts: Hosts) -> tuple[str, ...]:
    return at(
        hosts,
        lambda h: _loops(h.told["address"]),
        "nobody comes to a loopback interface from elsewhere; name the interface of a network that the hosts share in "
        "GLOO_SOCKET_IFNAME",
    )


def _leads(hosts: Hosts) -> Row:
    found = told(hosts, lambda h: f"{h.told['master']} -> {h.told['leads'] or 'nowhere'}")
    needed = at(
        hosts,
        lambda h: _loops(h.told["leads"]),
        "the first host's name leads to loopback; start with --master-addr and an address, or mend /etc/hosts",
    )
    return Row("first host", found, needed)


def _secret(hosts: Hosts) -> Row:
    def state(host: object) -> str:
        said = host.told  # type: ignore[attr-defined]
        return "unusable" if "unusable" in said else "given" if said["secret"] else "none"

    remedy = "set STALEGRID_SECRET to the same long random text for all processes (openssl rand -hex 32)"
    needed = at(hosts, lambda h: state(h) == "none", f"has no secret; {remedy}")
    for host in hosts:
        if "unusable" in host.told:
            needed += (f"{host.name}: {host.told['unusable']}",)
    given = [host for host in hosts if state(host) == "given"]
    if given:
        # What is compared is not shown.
        others = [host.name for host in given if host.told["secret"] != given[0].told["secret"]]
        needed += (f"{', '.join(others)}: another secret than that of {given[0].name}; {remedy}",) if others else ()
    return Row("secret", told(hosts, state), needed)


def _loops(address: str) -> bool:
    return bool(address) and ip_address(address).is_loopback
