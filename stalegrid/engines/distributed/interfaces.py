"""The interfaces of this host: which there are, which leads back to it, which leads to another.

Does not know: processes, who listens, what travels.
"""

import ctypes
import socket
import sys
from dataclasses import dataclass

from stalegrid.errors import ConfigError

GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
"""Variables that name the interface on which each library listens."""

_UP, _LOOPBACK = 0x1, 0x8  # flags of <net/if.h>
_SOMEWHERE = 9  # a port: nothing is sent there


@dataclass(frozen=True)
class Interface:
    """An interface that is up.

    Args:
        name: such as eth0.
        address: its first one, on which Gloo listens.
        loops: whether it leads back to this host alone.
    """

    name: str
    address: str
    loops: bool


def interfaces() -> list[Interface]:
    """Return the addresses of all interfaces that are up, in the order in which the system has them."""
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Entry)()
    if libc.getifaddrs(ctypes.byref(first)):
        raise ConfigError(f"the interfaces of this host cannot be listed (errno: {ctypes.get_errno()})")
    try:
        found, entry = [], first
        while entry:
            one = entry.contents
            address = _address(one.address)
            if address and one.flags & _UP:
                found.append(Interface(one.name.decode(), address, bool(one.flags & _LOOPBACK)))
            entry = one.next
        return found
    finally:
        libc.freeifaddrs(first)


def named(name: str) -> Interface:
    """Return the interface of a name, or of the first of several with commas between them, as Gloo takes them.

    Raises:
        ConfigError: there is none, or it is down.
    """
    there = interfaces()
    for wanted in reversed(name.split(",")):
        found = next((one for one in there if one.name == wanted), None)
        if found is None:
            names = ", ".join(dict.fromkeys(f"{one.name} {one.address}" for one in there))
            raise ConfigError(f"no interface that is up has that name ({GLOO}: {name}); there are: {names or 'none'}")
    assert found is not None
    return found


def towards(host: str) -> Interface:
    """Return the interface from which another host is reached; where it is this host, the one with that address.

    Args:
        host: name or address.

    Raises:
        OSError: the name leads nowhere, or nothing leads there.
    """
    address = resolved(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.connect((address, _SOMEWHERE))  # of such a socket that asks for the route alone
        own = asked.getsockname()[0].partition("%")[0]
    there = interfaces()
    # All of 127.0.0.0/8 is this host, though one address of it is that of the interface.
    loops = own.startswith("127.")
    found = next((one for one in there if one.address == own or (loops and one.loops)), None)
    if found is None:
        raise OSError(f"no interface that is up has the address {own}, from which {host} is reached")
    return next(one for one in there if one.name == found.name)


def resolved(host: str) -> str:
    """Return the address that a name leads to.

    Raises:
        OSError: it leads nowhere.
    """
    return str(socket.getaddrinfo(host, _SOMEWHERE, type=socket.SOCK_DGRAM)[0][4][0])


def loopback() -> str:
    """Return the name of the interface that leads back to this host.

    Raises:
        ConfigError: there is none, or it is down.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5.0).close()
    except OSError as problem:
        raise ConfigError(
            f"processes of one host meet on its loopback interface, which is down (127.0.0.1: {problem.strerror}); "
            "bring it up (ip link set lo up), or take engine simulator"
        ) from problem
    names = [one.name for one in interfaces() if one.loops]
    if not names:
        raise ConfigError("this host has no loopback interface (interfaces: none of that sort); take engine simulator")
    return names[0]


class _Entry(ctypes.Structure):
    """An entry of the list that getifaddrs(3) makes, as far as it is read."""


_Entry._fields_ = [
    ("next", ctypes.POINTER(_Entry)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]

_PLACES = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}
"""Where the address stands in a sockaddr, and its bytes."""


def _address(where: int | None) -> str:
    """Return an address as text; nothing where there is none of the internet."""
    if not where:
        return ""
    family = int.from_bytes(ctypes.string_at(where, 2), sys.byteorder)
    if family not in _PLACES:
        return ""
    offset, size = _PLACES[socket.AddressFamily(family)]
    return socket.inet_ntop(family, ctypes.string_at(where, offset + size)[offset:])
