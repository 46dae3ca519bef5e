"""Joins processes that torchrun, or another launcher with its variables, has started.

Does not know: what is trained, what processes then tell each other.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from secrets import token_hex
from threading import Event, Thread
from time import sleep
from typing import TypeVar

import torch.distributed as dist

# Torch's optimizers import this, and its functions keep the group that is the default one at that moment for ever.  A
# group that lives on at the end of the interpreter has threads that may abort it; imported before, it sees none.
import torch.distributed.nn  # noqa: F401
from torch.distributed import Store  # type: ignore[attr-defined]

from stalegrid.engines.distributed.greeting import Greeting, check_alike
from stalegrid.engines.distributed.hosts import check_ways
from stalegrid.engines.distributed.interfaces import GLOO, NCCL
from stalegrid.engines.distributed.launched import VARIABLES, Launched
from stalegrid.engines.distributed.links import Answering
from stalegrid.engines.distributed.meeting import Met, Reach, Steps, all_there, meet, patience_of
from stalegrid.engines.distributed.peers import Peers
from stalegrid.engines.distributed.proof import prove
from stalegrid.engines.distributed.secret import common_secret
from stalegrid.errors import ConfigError, DeadlineExceeded

T = TypeVar("T")

Look = Callable[[Met, list[Greeting], Steps, Event], object]
"""Takes where processes have met and what each has said; is given what :class:`Hear` is."""

HOSTS = "GROUP_WORLD_SIZE"
"""What torchrun calls their number."""

_LOOK = 0.5  # seconds between two looks for the launcher
_GRACE = 5.0  # seconds to end in order


def hosts() -> int:
    """Return how many hosts a launcher has started processes on, where it tells; else 1."""
    return int(os.environ.get(HOSTS, "1"))


def active() -> bool:
    """Return whether this process was started as one of several."""
    return dist.is_initialized() or set(VARIABLES) <= os.environ.keys()


@contextmanager
def joined(deadline: float, look: Look | None = None) -> Iterator[Peers]:
    """Join the other processes.

    Args:
        deadline: seconds that one may give no sign of life.
        look: called once all are there, before they are connected.

    Raises:
        ConfigError: what the environment says cannot be, the script's own group cannot carry tensors of the CPU, or the
            processes have no secret in common.
        EngineError: processes did not come, or did not prove that they are of this run.
    """
    with ExitStack() as stack:
        stack.enter_context(_ending_with_launcher())
        if dist.is_initialized():
            _check_group()
            if look is not None:
                raise ConfigError(
                    "processes that a script has connected do not meet any more (init_process_group); leave that out"
                )
        else:
            stack.enter_context(_met(deadline, look))
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
def gathered(deadline: float) -> Iterator[Met]:
    """Wait for the other processes, which are not connected, and let each say what it is; see :func:`joined`."""
    with ExitStack() as stack:
        stack.enter_context(_ending_with_launcher())
        launched = Launched.here()
        stack.enter_context(_kept(GLOO, NCCL))
        yield _explained(launched, deadline, lambda *of: all_there(of[0], deadline, launched.where, of[1]), stack)


@contextmanager
def _met(deadline: float, look: Look | None) -> Iterator[None]:
    launched, patience = Launched.here(), patience_of(deadline)

    def hear(met: Met, steps: Steps, over: Event) -> None:
        greetings = Greeting.all(met.said)
        check_alike(greetings)
        check_ways(met, greetings, steps, over)
        if look is not None:
            look(met, greetings, steps, over)

    with _kept(GLOO, NCCL):
        with ExitStack() as stack:
            _explained(launched, patience, lambda *of: meet(of[0], patience, launched.where, of[1], hear), stack)
        try:
            yield
        finally:
            # Its threads may abort the interpreter at its end.
            dist.destroy_process_group()


def _explained(
    launched: Launched, patience: float, come: Callable[[Reach, Callable[[], str]], T], stack: ExitStack
) -> T:
    """Meet the others; where nobody comes, say what is wrong with the way to them as far as it shows from here.

    Args:
        launched: as what this process was started.
        patience: seconds for the way to be there.
        come: meets them, given how their place is reached, and what this process then says.
        stack: for as long as this process answers hosts that look for a way to it.
    """
    greetings: list[Greeting] = []

    def reach() -> tuple[Store, int, int]:
        interface = launched.interface(patience)
        # Each library listens on the interface of that name, and on no other.
        os.environ.setdefault(GLOO, interface.name)
        os.environ.setdefault(NCCL, f"={interface.name}")
        drawn, port = token_hex(16), 0
        if not launched.alone:
            port = stack.enter_context(closing(Answering(interface.address, drawn))).port
        greetings.append(Greeting.here(interface, drawn, port))
        return launched.store(interface, patience), launched.rank, launched.size

    launched.announce()
    try:
        return come(reach, lambda: greetings[0].text())
    except DeadlineExceeded as problem:
        raise DeadlineExceeded(f"{problem}{launched.trouble()}") from None


@contextmanager
def _kept(*names: str) -> Iterator[None]:
    """Let variables of the environment be in the end what they were."""
    before = {name: os.environ[name] for name in names if name in os.environ}
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


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
