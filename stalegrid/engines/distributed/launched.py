"""What a launcher says of the processes that it has started, and the place where by that they meet.

Does not know: what they say there, what they do when they have met.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from errno import EADDRNOTAVAIL
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, create_connection, create_server, socket
from time import monotonic, sleep
from typing import TypeVar

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from stalegrid.engines.distributed.interfaces import GLOO, Interface, loopback, named, resolved, towards
from stalegrid.errors import ConfigError, DeadlineExceeded

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells the processes that it starts."""

_LOCAL = ("127.0.0.1", "localhost", "::1")
_LOOK = 0.5  # seconds between two looks
_CLEAR = 2.0  # seconds in which a way shows that nothing is wrong with it


@dataclass(frozen=True)
class Launched:
    """What a launcher says in the environment.

    Args:
        rank: of this process.
        size: how many there are.
        host: name or address of the first one's.
        port: where they meet there.
    """

    rank: int
    size: int
    host: str
    port: int

    @classmethod
    def here(cls) -> "Launched":
        """Read it.

        Raises:
            ConfigError: it cannot be.
        """
        rank, size, port = (_number(name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        if not 0 <= rank < size:
            raise ConfigError(f"the environment names a process that cannot be (RANK: {rank}, WORLD_SIZE: {size})")
        return cls(rank, size, os.environ["MASTER_ADDR"], port)

    @property
    def where(self) -> str:
        """Where they meet."""
        return f"{self.host}:{self.port}"

    @property
    def alone(self) -> bool:
        """Whether all processes are known to be on one host."""
        return self.host in _LOCAL or os.environ.get("LOCAL_WORLD_SIZE") == str(self.size)

    def announce(self) -> None:
        """Say for whom this process waits, and why."""
        if self.size == 1:
            return
        known = os.environ.get(GLOO) or (loopback() if self.alone else f"that which leads to {self.host}")
        print(
            f"stalegrid: process {self.rank} waits for {self.size - 1} others at {self.where} (interface: {known}), as "
            f"{', '.join(VARIABLES)} in the environment say; unset them if nobody started it as one of several",
            file=sys.stderr,
            flush=True,
        )

    def interface(self, patience: float) -> Interface:
        """Return the interface on which this process listens.

        That which the user names, loopback where all processes are on one host, or else the one that leads to the first
        process.  A host's own name, of which Gloo would take the address, leads to loopback on many.

        Args:
            patience: seconds for the way to be there: a name may lead nowhere yet where hosts are made at this moment.

        Raises:
            ConfigError: there is none of that name.
            DeadlineExceeded: none leads there.
        """
        if GLOO in os.environ:
            return named(os.environ[GLOO])
        return named(loopback()) if self.alone else self._reached(lambda: towards(self.host), patience)

    def store(self, interface: Interface, patience: float) -> Store:
        """Return the store that torchrun has, or the first process's own.

        Args:
            interface: on which this process listens.
            patience: seconds for the store to be there.

        Raises:
            DeadlineExceeded: nothing answers there.
            OSError: this process, the first one, cannot listen there.
        """
        theirs = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        timeout = timedelta(seconds=patience)
        if self.rank == 0 and not theirs:
            # Torch itself would listen on every interface.
            # Given up first, so that the reason is told and not that nobody came.
            listening = _patiently(lambda: self._listening(interface), patience / 2)
            host, port = listening.getsockname()[:2]
            number = listening.detach()
            return TCPStore(
                host, port, is_master=True, timeout=timeout, wait_for_workers=False, master_listen_fd=number
            )
        # Torch would write of every attempt that fails.
        self._reached(lambda: create_connection((self.host, self.port), timeout=patience).close(), patience)
        return TCPStore(self.host, self.port, timeout=timeout, wait_for_workers=False, multi_tenant=True)

    def _reached(self, look: Callable[[], T], patience: float) -> T:
        """Return what is found once there is a way; where there is none, say so as whoever waits for this would."""
        try:
            return _patiently(look, patience)
        except OSError as problem:
            raise DeadlineExceeded(f"nothing answers at {self.where}, for {patience:g} s") from problem

    def _listening(self, interface: Interface) -> socket:
        """Return a socket that listens where the others look for this process."""
        address = "127.0.0.1" if self.host == "localhost" else resolved(self.host)
        try:
            return _listen(address, self.port)
        except OSError as problem:
            if problem.errno != EADDRNOTAVAIL:
                raise
        # The others come to an address of a router, which hands them on.
        return _listen(interface.address, self.port)

    def trouble(self) -> str:
        """Return what is wrong with the way to where processes meet, for the end of an error; nothing if nothing is."""
        try:
            address = resolved(self.host)
            if self.rank:
                create_connection((self.host, self.port), timeout=_CLEAR).close()
        except OSError as problem:
            return f" ({self.host}: {problem.strerror or problem}); stalegrid doctor, started alike, shows more"
        if ip_address(address).is_loopback and not self.alone:
            return f" ({self.host} leads to {address} here, where no other host comes); name an address of that host"
        return ""


def _listen(address: str, port: int) -> socket:
    return create_server((address, port), family=AF_INET6 if ":" in address else AF_INET)


def _patiently(look: Callable[[], T], patience: float) -> T:
    """Return what is found as soon as it is, or raise as before after some seconds."""
    end = monotonic() + patience
    while True:
        try:
            return look()
        except OSError:
            if monotonic() > end:
                raise
            sleep(_LOOK)


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ConfigError(f"the environment names no number ({name}: {text!r}); start the processes with torchrun")
    return int(text)
