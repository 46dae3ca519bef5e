"""Joins processes that torchrun, or another launcher with its variables, has started.

Does not know: what is trained, what processes then tell each other.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from socket import create_server
from threading import Event, Thread
from time import sleep

import torch.distributed as dist

# Torch's optimizers import this, and its functions keep the group that is the default one at that moment for ever.  A
# group that lives on at the end of the interpreter has threads that may abort it; imported before, it sees none.
import torch.distributed.nn  # noqa: F401
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from stalegrid.engines.distributed.meeting import loopback, meet, patience_of
from stalegrid.engines.distributed.peers import Peers
from stalegrid.engines.distributed.proof import prove
from stalegrid.engines.distributed.secret import common_secret
from stalegrid.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells the processes that it starts."""

HOSTS = "GROUP_WORLD_SIZE"
"""What torchrun calls their number."""

INTERFACE = "GLOO_SOCKET_IFNAME"
"""Names the interface that Gloo uses."""

_LOCAL = ("127.0.0.1", "localhost", "::1")
_LOOK = 0.5  # seconds between two looks for the launcher
_GRACE = 5.0  # seconds to end in order


def hosts() -> int:
    """Return how many hosts a launcher has started processes on, where it tells; else 1."""
    return int(os.environ.get(HOSTS, "1"))


def active() -> bool:
    """Return whether this process was started as one of several."""
    return dist.is_initialized() or set(VARIABLES) <= os.environ.keys()


@contextmanager
def joined(deadline: float) -> Iterator[Peers]:
    """Join the other processes.

    Args:
        deadline: seconds that one may give no sign of life.

    Raises:
        ConfigError: what the environment says cannot be, the script's own group cannot carry tensors of the CPU, or the
            processes have no secret in common.
        EngineError: processes did not come, or did not prove that they are of this run.
    """
    with ExitStack() as stack:
        stack.enter_context(_ending_with_launcher())
        if dist.is_initialized():
            _check_group()
        else:
            stack.enter_context(_met(deadline))
        # A group of the user's own may be older than the others' arrival here.
        prove(common_secret(patience_of(deadline)), patience_of(deadline))
        rank = dist.get_rank()
        yield Peers(rank, dist.get_world_size(), int(os.environ.get("LOCAL_RANK", rank)), deadline)


def _check_group() -> None:
    """Refuse a group of the script's own that lacks the backend on which processes talk, whatever they compute on."""
    backends = dist.get_backend_config()
    if "cpu:gloo" not in backends.split(","):
        raise ConfigError(
            f"the script's process group has no Gloo for the CPU (backends: {backends}); let it call "
            'init_process_group("cpu:gloo,cuda:nccl"), or leave the call out'
        )


@contextmanager
def _met(deadline: float) -> Iterator[None]:
    rank, size, port = (_number(name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    if not 0 <= rank < size:
        raise ConfigError(f"the environment names a process that cannot be (RANK: {rank}, WORLD_SIZE: {size})")
    host = os.environ["MASTER_ADDR"]
    with _interface(host) as interface:
        if size > 1:
            print(
                f"stalegrid: process {rank} waits for {size - 1} others at {host}:{port} (interface: {interface}), as "
                f"{', '.join(VARIABLES)} in the environment say; unset them if nobody started it as one of several",
                file=sys.stderr,
                flush=True,
            )
        patience = patience_of(deadline)
        meet(lambda: (_store(host, port, rank, patience), rank, size), patience, f"{host}:{port}")
        try:
            yield
        finally:
            # Its threads may abort the interpreter at its end.
            dist.destroy_process_group()


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ConfigError(f"the environment names no number ({name}: {text!r}); start the processes with torchrun")
    return int(text)


@contextmanager
def _interface(host: str) -> Iterator[str]:
    """Let processes of one host talk on its loopback interface, unless the user named another."""
    named = os.environ.get(INTERFACE)
    alone = host in _LOCAL or os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    if named is not None or not alone:
        yield named or "that of this host's name"
        return
    os.environ[INTERFACE] = found = loopback()
    try:
        yield found
    finally:
        os.environ.pop(INTERFACE, None)


def _store(host: str, port: int, rank: int, patience: float) -> Store:
    """Return the store that torchrun has, or the first process's own."""
    timeout = timedelta(seconds=patience)
    theirs = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    listening = None
    if rank == 0 and not theirs and host in _LOCAL:
        listening = create_server(("127.0.0.1", port)).detach()  # torch itself would listen on every interface
    return TCPStore(
        host,
        port,
        is_master=rank == 0 and not theirs,
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=listening is None,
        master_listen_fd=listening,
    )


@contextmanager
def _ending_with_launcher() -> Iterator[None]:
    """End this process when torchrun, which started it, is gone: killed, it cannot do that itself."""
    over = Event()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        Thread(target=_watch, args=(os.getppid(), over), name="watch torchrun", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(launcher: int, over: Event) -> None:
    while not over.wait(_LOOK):
        if os.getppid() != launcher:
            with suppress(OSError):  # whoever read this may be gone too
                print("stalegrid: torchrun is gone; this process ends too", file=sys.stderr, flush=True)
            # In order first; a call that hangs in C++ does not see the signal.
            os.kill(os.getpid(), signal.SIGTERM)
            sleep(_GRACE)
            os._exit(128 + signal.SIGTERM)
