"""The one owner of randomness: (seed, purpose, indices) -> generator.

Does not know: who draws, or what for.

Every draw of the library is keyed by what it is for, never by who happened to draw before, so that any engine, any
number of processes and any order of execution see the same numbers.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, purpose: str, *index: int) -> int:
    """Derive the 63-bit seed of one purpose.

    Args:
        seed: the run's seed.
        purpose: what is drawn, e.g. ``"dropout"``.
        index: integer coordinates of the draw, e.g. group, stage, batch.

    Returns:
        A seed that differs, for practical purposes, for any two different keys.
    """
    # Not by hash(), which differs from process to process.
    key = ":".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """Return a fresh CPU generator for one purpose; see :func:`derive`."""
    return torch.Generator().manual_seed(derive(seed, purpose, *index))


def key(device: torch.device, seed: int, purpose: str, *index: int) -> None:
    """Set the global generators of torch (CPU and ``device``), NumPy and Python for one purpose; see :func:`derive`.

    For code that offers no generator argument, such as ``nn.Dropout`` or a user's own.
    """
    derived = derive(seed, purpose, *index)
    for source in _generators(device):
        source.manual_seed(derived)
    random.seed(derived)
    # The upper 32 bits, all that NumPy takes.  Not the lower ones: its generator is of the same kind as torch's, which
    # would then draw the same numbers.
    np.random.seed(derived >> 31)


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Put the global generators of torch (CPU and ``device``), NumPy and Python back as they were before."""
    generators = _generators(device)
    states = [source.get_state() for source in generators]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        for source, state in zip(generators, states, strict=True):
            source.set_state(state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def drawing(device: torch.device, seed: int, purpose: str, *index: int) -> Iterator[None]:
    """Let the global generators draw for one purpose, then put them back; see :func:`key` and :func:`kept`."""
    with kept(device):
        key(device, seed, purpose, *index)
        yield


def _generators(device: torch.device) -> tuple[torch.Generator, ...]:
    if device.type == "cuda":
        return torch.default_generator, torch.cuda.default_generators[device.index or 0]
    return (torch.default_generator,)
