"""Runs a function in several forked processes that have met, so that no test has to wait for torch to load."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from stalegrid.engines.distributed.interfaces import loopback
from stalegrid.engines.distributed.meeting import meet

Act = Callable[[int], str]
"""What a process does with its rank; what it returns is what it says."""


def together(folder: Path, size: int, act: Act, seconds: float = 60.0) -> list[str]:
    """Return what each process said, or the name and the text of the error that ended it.

    Args:
        folder: to meet in.
        size: number of processes.
        act: what each does once all have met.
        seconds: after which one that has not ended is killed.
    """
    children = [_fork(folder, rank, size, act, seconds) for rank in range(size)]
    for child in children:
        os.waitpid(child, 0)
    return [path.read_text() if (path := folder / f"said-{rank}").exists() else "nothing" for rank in range(size)]


def _fork(folder: Path, rank: int, size: int, act: Act, seconds: float) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that a fork does not copy; none of them is used here
        child = os.fork()
    if child:
        return child
    try:
        signal.alarm(round(seconds))
        os.environ["GLOO_SOCKET_IFNAME"] = loopback()
        meet(lambda: (dist.FileStore(str(folder / "store"), size), rank, size), 10.0, "a test")
        said = act(rank)
    except Exception as error:  # what a test asks for
        said = f"{type(error).__name__}: {error}"
        traceback.print_exc(file=sys.__stderr__)
    (folder / f"said-{rank}").write_text(said)
    os._exit(0)
