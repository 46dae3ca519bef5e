"""Runs inside processes that torchrun, or another launcher with its variables, has started.

Does not know: what is trained, files.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

# Torch's optimizers import this, and its functions keep the group that is the default one at that moment for ever.  A
# group that lives on at the end of the interpreter has threads that may abort it; imported before, it sees none.
import torch.distributed.nn  # noqa: F401

from stalegrid.engines.distributed.worker import Job, work
from stalegrid.errors import ConfigError

T = TypeVar("T")

_LONG = 3600.0


def active() -> bool:
    """Return whether this process was started as one of several."""
    return dist.is_initialized() or {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


@contextmanager
def joined(deadline: float) -> Iterator[tuple[int, int, int]]:
    """Join the other processes; yield this one's rank, how many there are, and its number on its host.

    Args:
        deadline: seconds to wait for them.
    """
    ours = not dist.is_initialized()
    if ours:
        # At the end the others wait for the first process to measure the model, which may take longer.
        dist.init_process_group("gloo", timeout=timedelta(seconds=max(deadline, _LONG)))
    try:
        yield dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", dist.get_rank()))
    finally:
        if ours:
            dist.destroy_process_group()


def agree(make: Callable[[], T]) -> T:
    """Return in every process what the first one makes; an error there is raised in all."""
    made: list[T | Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            made = [make()]
        except Exception as error:  # raised below, here and everywhere
            made = [error]
    dist.broadcast_object_list(made, src=0)
    (found,) = made
    if isinstance(found, Exception):
        raise found
    return found  # type: ignore[return-value]


def check_same(what: str, value: str) -> None:
    """Check that every process has the same value.

    Raises:
        ConfigError: in every process, if they differ.
    """
    values: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    others = [rank for rank, v in enumerate(values) if v != values[0]]
    if others:
        raise ConfigError(
            f"processes have different {what} (process 0 and processes: {others}); seed what draws it, such as a split"
        )


@contextmanager
def shared(make: Callable[[], AbstractContextManager[Path]]) -> Iterator[Path]:
    """Open a folder in the first process, which closes it, and tell all others its name."""
    with ExitStack() as opened:
        yield agree(lambda: opened.enter_context(make()))


def run(job: Job, local_rank: int) -> None:
    """Run this process's agents to the end."""
    work(job, local_rank, spare=False)
