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
    key = ":".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """Return a fresh CPU generator for one purpose; see :func:`derive`."""
    return torch.Generator().manual_seed(derive(seed, purpose, *index))


@contextmanager
def drawing(device: torch.device, seed: int, purpose: str, *index: int) -> Iterator[None]:
    """Let torch's global generators of the CPU and ``device`` draw for one purpose, then put them back.

    For code that offers no generator argument, such as ``nn.Dropout``.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [g.get_state() for g in generators]
    try:
        for g in generators:
            g.manual_seed(derive(seed, purpose, *index))
        yield
    finally:
        for g, state in zip(generators, states, strict=True):
            g.set_state(state)


@contextmanager
def drawing_items(seed: int, *index: int) -> Iterator[None]:
    """Let a user's data set draw for one item, from torch's, NumPy's or Python's global generator."""
    states = random.getstate(), np.random.get_state()
    key = derive(seed, "item", *index)
    try:
        random.seed(key)
        np.random.seed(key % 2**32)
        with drawing(torch.device("cpu"), seed, "sample", *index):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
