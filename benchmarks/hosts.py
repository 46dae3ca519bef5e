"""Hosts that this machine does not have: network namespaces joined by links of a given speed and length.

Does not know: what runs on them.

Every host has one interface to a switch, which is a bridge in a namespace of its own; both directions of it are slowed
by a token bucket, and nothing outside is touched.  Hosts that are far apart have a long cable to it
(:mod:`benchmarks.cable`).  Needs Linux, ``ip``, ``tc`` and the right to make namespaces; cables need ``/dev/net/tun``.
"""

import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
def hosts(number: int, mbit: float, delay: float = 0.0) -> Iterator[list[Host]]:
    """Make hosts and remove them in the end.

    Args:
        number: how many.
        mbit: Mbit/s of every link, in each direction.
        delay: milliseconds from any host to any other one, beside those that the speed of the links takes.

    Raises:
        Skipped: this machine does not allow it.
    """
    if shutil.which("ip") is None or shutil.which("tc") is None:
        raise Skipped("needs the commands ip and tc (iproute2)")
    run = f"stalegrid-{uuid.uuid4().hex[:6]}"
    made = [Host(f"{run}-{i}", f"10.99.0.{i + 1}") for i in range(number)]
    switch = Host(f"{run}-switch", "")
    ports = [f"port{i}" for i in range(number)]
    with ExitStack() as laid:
        try:
            for namespace in (switch, *made):
                _ip("netns", "add", namespace.namespace)
            _ip("-n", switch.namespace, "link", "add", "bridge", "type", "bridge")
            _ip("-n", switch.namespace, "link", "set", "bridge", "up")
            if delay:
                laid.enter_context(_cables(switch, dict(zip(ports, made, strict=True)), delay / 2))
            for host, port in zip(made, ports, strict=True):
                if not delay:
                    veth = ("type", "veth", "peer", INTERFACE, "netns", host.namespace)
                    _ip("-n", switch.namespace, "link", "add", port, *veth)
                _join(host, switch.namespace, port, mbit)
            yield made
        finally:
            for namespace in (switch, *made):
                subprocess.run(["ip", "netns", "delete", namespace.namespace], capture_output=True)


@contextmanager
def _cables(switch: Host, ports: Mapping[str, Host], delay: float) -> Iterator[None]:
    """Lay a cable from every host to its port, so long that the way there takes so many milliseconds."""
    pairs = ((f"{switch.namespace}:{port}", f"{host.namespace}:{INTERFACE}") for port, host in ports.items())
    ends = [end for pair in pairs for end in pair]
    command = switch.command([sys.executable, "-m", "benchmarks.cable", str(delay), *ends])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as cables:
        assert cables.stdout is not None
        try:
            if not cables.stdout.readline():
                raise Skipped(f"no long cables: {cables.communicate()[1].decode().strip()[-500:]}")
            yield
        finally:
            assert cables.stdin is not None
            cables.stdin.close()  # its end, for which the block waits


def _join(host: Host, switch: str, port: str, mbit: float) -> None:
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
