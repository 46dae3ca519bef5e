"""Hosts that this machine does not have: network namespaces joined by links of a given speed.

Does not know: what runs on them.

Every host has one interface to a switch, which is a bridge in a namespace of its own; both directions of it are slowed
by a token bucket, and nothing outside is touched.  Needs Linux, ``ip``, ``tc`` and the right to make namespaces.
"""

import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.measure import Skipped

INTERFACE = "eth0"
_BUCKET, _QUEUE = "128kb", "50ms"


@dataclass(frozen=True)
class Host:
    """A network namespace.

    Args:
        namespace: its name.
        address: on the network of the hosts.
    """

    namespace: str
    address: str

    def command(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs another one there."""
        return ["ip", "netns", "exec", self.namespace, *command]


@contextmanager
def hosts(number: int, mbit: float) -> Iterator[list[Host]]:
    """Make hosts and remove them in the end.

    Args:
        number: how many.
        mbit: Mbit/s of every link, in each direction.

    Raises:
        Skipped: this machine does not allow it.
    """
    if shutil.which("ip") is None or shutil.which("tc") is None:
        raise Skipped("needs the commands ip and tc (iproute2)")
    run = f"stalegrid-{uuid.uuid4().hex[:6]}"
    made = [Host(f"{run}-{i}", f"10.99.0.{i + 1}") for i in range(number)]
    switch = f"{run}-switch"
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for i, host in enumerate(made):
            _join(host, switch, f"port{i}", mbit)
        yield made
    finally:
        for name in (switch, *(host.namespace for host in made)):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _join(host: Host, switch: str, port: str, mbit: float) -> None:
    _ip("netns", "add", host.namespace)
    _ip("-n", switch, "link", "add", port, "type", "veth", "peer", INTERFACE, "netns", host.namespace)
    _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
    _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", INTERFACE)
    _ip("-n", host.namespace, "link", "set", INTERFACE, "up")
    _ip("-n", host.namespace, "link", "set", "lo", "up")
    for namespace, device in ((switch, port), (host.namespace, INTERFACE)):
        rate = ("tbf", "rate", f"{mbit:g}mbit", "burst", _BUCKET, "latency", _QUEUE)
        _run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", *rate)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise Skipped(f"{' '.join(command)}: {made.stderr.strip()}; needs the right to make network namespaces")
