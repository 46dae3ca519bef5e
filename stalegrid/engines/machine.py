"""The device, the threads and the memory of this process.

Does not know: other processes, what is computed.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stalegrid.errors import ConfigError

THREADS = 256
"""Of a process, at most."""


def use_device(name: str, local_rank: int) -> torch.device:
    """Choose the device of this process, the CPU or a GPU in turn, and make its arithmetic repeatable.

    Args:
        name: cpu, cuda or auto.
        local_rank: number of the process on its host.

    Raises:
        ConfigError: CUDA was asked for and there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("CUDA was asked for but torch sees no GPU here (device: cuda); use --device cpu or auto")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    torch.backends.cudnn.deterministic = True
    return device


LARGE, SMALL = 2**30, 2**18
"""Bytes of memory that is kept for what comes next, where there is enough and where there is little."""

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # as <malloc.h> numbers them


@contextmanager
def computing(number: int, *, sparing: bool = False) -> Iterator[None]:
    """Compute with some number of threads, then with as many as before; the process keeps memory that is freed.

    Another number of threads sums in another order.  So the default is one a process on every engine, on which engines
    agree to the bit; more are for speed where nothing is compared.

    Args:
        number: of threads.
        sparing: whether memory that is freed is given back at once, where there is little.

    Raises:
        ConfigError: there can be none, or so many that the libraries for arithmetic would crash.
    """
    if not 1 <= number <= THREADS:
        raise ConfigError(f"arithmetic needs at least one thread, at most {THREADS} (threads: {number})")
    _keep_memory(SMALL if sparing else LARGE)
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_memory(most: int) -> None:
    """Let the C library keep freed memory for what comes next, from now on, unless the user has said otherwise.

    Args:
        most: bytes of what is kept at most; what is larger is given back when it is freed.

    Activations, messages and copies of weights are allocated anew for every batch.  glibc would give each large one
    back to the system, and then pay for every page of the next: 8 % of the processor time of ResNet-20, timed by hand.
    Cuts that were measured in a fresh process came out a few operations too early, since large activations pay and
    small ones do not.  The price: a notebook that has trained keeps that memory until it ends.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries than glibc have none
    if mallopt is not None:
        # Up to so much from the heap, which is never trimmed.
        mallopt(_MMAP_THRESHOLD, most)
        mallopt(_TRIM_THRESHOLD, -1)
