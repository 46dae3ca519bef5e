"""What a process says of itself as it comes, and which processes cannot work together.

Does not know: how they meet, what they do then.
"""

import dataclasses
import hashlib
import json
import platform
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import torch

import stalegrid
from stalegrid.engines.distributed.interfaces import Interface
from stalegrid.errors import ConfigError, ProtocolError
from stalegrid.version import __version__


@dataclass(frozen=True)
class Greeting:
    """What a process is.

    Args:
        host: its name.
        interface: on which the process listens.
        address: of the interface.
        port: on which it answers there; 0 where all processes are on one host.
        python: version.
        torch: likewise; builds for other devices have the same.
        stalegrid: likewise.
        code: a digest of the files of this library.
        drawn: a number that is used once.
    """

    host: str
    interface: str
    address: str
    port: str
    python: str
    torch: str
    stalegrid: str
    code: str
    drawn: str

    @classmethod
    def here(cls, interface: Interface, drawn: str = "", port: int = 0) -> "Greeting":
        """Return that of this process.

        Args:
            interface: on which it listens.
            drawn: a number that is used once.
            port: on which it answers whoever shows that number.
        """
        return cls(
            socket.gethostname(),
            interface.name,
            interface.address,
            str(port),
            platform.python_version(),
            str(torch.__version__).partition("+")[0],
            __version__,
            digest(Path(stalegrid.__file__).parent),
            drawn,
        )

    def text(self) -> str:
        """Return it as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def read(cls, rank: int, text: str) -> "Greeting":
        """Undo :meth:`text`.

        Raises:
            ProtocolError: it is something else, such as that of another version.
        """
        try:
            found = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError) as problem:
            raise ProtocolError(
                f"process {rank} does not say what it is ({text[:80]!r}); install the same stalegrid on all hosts, "
                f"{__version__} as here"
            ) from problem
        if not all(isinstance(value, str) for value in vars(found).values()):
            raise ProtocolError(f"process {rank} does not say what it is ({text[:80]!r})")
        return found

    @classmethod
    def all(cls, texts: Sequence[str]) -> "list[Greeting]":
        """Return those of all processes, in the order of their ranks; see :meth:`read`."""
        return [cls.read(rank, text) for rank, text in enumerate(texts)]

    @property
    def loops(self) -> bool:
        """Whether no other host can come to the address."""
        try:
            return ip_address(self.address).is_loopback
        except ValueError:
            return False


def digest(folder: Path, names: str = "*.py") -> str:
    """Return a digest of the files in a folder and those below it."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob(names)):
        found.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def check_alike(greetings: Sequence[Greeting]) -> None:
    """Refuse processes that cannot work together, or would compute something else.

    Raises:
        ConfigError: they have other versions, or listen where others cannot come.
    """
    remedy = "install the same on all hosts"
    _check("versions", greetings, lambda one: f"stalegrid {one.stalegrid}, torch {one.torch}", remedy)
    _check("files of stalegrid", greetings, lambda one: f"digest {one.code}", remedy)
    if len({one.loops for one in greetings}) > 1:
        remedy = "let the address of the first process be one that all hosts reach, or name it in GLOO_SOCKET_IFNAME"
        _check("sorts of interfaces", greetings, lambda one: f"{one.interface} {one.address}", remedy)


def _check(what: str, greetings: Sequence[Greeting], of: Callable[[Greeting], str], remedy: str) -> None:
    first = greetings[0]
    for rank, one in enumerate(greetings):
        if of(one) != of(first):
            raise ConfigError(
                f"processes have different {what} (process 0 on {first.host}: {of(first)}; process {rank} on "
                f"{one.host}: {of(one)}); {remedy}; stalegrid doctor, started alike, shows all hosts"
            )
