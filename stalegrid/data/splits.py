"""Which samples each group has for its own, where groups shall have unlike data.

Does not know: batches, passes, how labels are read.

A split is a pure function of (seed, labels, number of groups), so that processes that never talk deal alike, and each
sample is dealt to one group.

``dirichlet=ALPHA``: the samples of each label are dealt to groups in proportions drawn from Dirichlet(ALPHA, ...,
ALPHA); the smaller ALPHA, the fewer groups share a label, and groups have unlike numbers of samples too.  Yurochkin et
al., arXiv 1905.12022.  Hsu, Qi and Brown, arXiv 1909.06335, draw the proportions of labels for each group instead, and
all groups have equally many samples; ALPHA measures how unlike groups are in both.

``shards=N``: samples are sorted by label and cut into S N shards in a row, as equal as can be, and each group is dealt
N of them; McMahan et al., arXiv 1602.05629.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stalegrid.data.sources import bytes_of
from stalegrid.errors import ConfigError
from stalegrid.seeds import derive, generator

EVEN = "even"
"""The split of groups that share out each epoch, and have no samples of their own."""


class Split(Protocol):
    """Deals samples to groups."""

    def deal(self, labels: Tensor, groups: int, seed: int) -> list[Tensor]:
        """Return the samples of each group, in any order.

        Args:
            labels: of all samples, int64 (N,).
            groups: S.
            seed: keys what is drawn.

        Raises:
            ConfigError: there are too few samples to deal so.
        """


@dataclass(frozen=True)
class Dirichlet:
    """Each label in proportions of its own.

    Args:
        alpha: concentration, above 0.

    Raises:
        ConfigError: it is not.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"ALPHA is a number above 0 (split: dirichlet={self.alpha:g}); such as 0.1, or 1")

    def deal(self, labels: Tensor, groups: int, seed: int) -> list[Tensor]:
        """Return the samples of each group; see :class:`Split`."""
        dealt: list[list[Tensor]] = [[] for _ in range(groups)]
        for place, label in enumerate(torch.unique(labels).tolist()):
            members = _shuffled((labels == label).nonzero().flatten(), seed, place)
            for group, part in enumerate(torch.tensor_split(members, self._cuts(len(members), groups, seed, place))):
                dealt[group].append(part)
        return [torch.cat(parts) for parts in dealt]

    def _cuts(self, members: int, groups: int, seed: int, place: int) -> list[int]:
        """Return where the samples of a label are cut into those of groups."""
        shares = np.random.default_rng(derive(seed, "proportions", place)).dirichlet([self.alpha] * groups)
        if not math.isclose(shares.sum(), 1.0, rel_tol=1e-6):
            raise ConfigError(f"no proportions can be drawn (split: dirichlet={self.alpha:g}); take a smaller ALPHA")
        return [int(end) for end in np.floor(np.cumsum(shares)[:-1] * members)]


@dataclass(frozen=True)
class Shards:
    """Samples in the order of their labels, cut into as many shards for each group.

    Args:
        number: N, of a group.

    Raises:
        ConfigError: it is below 1.
    """

    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ConfigError(f"a group has at least one shard (split: shards={self.number}); such as shards=2")

    def deal(self, labels: Tensor, groups: int, seed: int) -> list[Tensor]:
        """Return the samples of each group; see :class:`Split`."""
        number = groups * self.number
        if number > len(labels):
            raise ConfigError(
                f"there are more shards than samples (split: shards={self.number}, groups: {groups}, samples: "
                f"{len(labels)}); take fewer"
            )
        shards = torch.tensor_split(labels.argsort(stable=True), number)
        order = torch.randperm(number, generator=generator(seed, "split")).view(groups, self.number)
        return [torch.cat([shards[shard] for shard in own]) for own in order.tolist()]


@dataclass(frozen=True, eq=False)
class Dealt:
    """What a split has dealt.

    Args:
        samples: of each group, ascending.
        labels: that there are, ascending.
        counts: samples of each label that each group has.
    """

    samples: tuple[Tensor, ...]
    labels: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, split: Split, labels: Tensor, groups: int, seed: int) -> "Dealt":
        """Deal samples; see :class:`Split`."""
        samples = tuple(own.sort().values for own in split.deal(labels, groups, seed))
        known, places = torch.unique(labels, return_inverse=True)
        counts = (torch.bincount(places[own], minlength=len(known)).tolist() for own in samples)
        return cls(samples, tuple(known.tolist()), tuple(map(tuple, counts)))

    @property
    def digest(self) -> str:
        """What tells it from other ones, whoever has dealt it."""
        seen = hashlib.blake2b(digest_size=16)
        for own in self.samples:
            seen.update(f"{len(own)}:".encode() + bytes_of(own))
        return seen.hexdigest()


def split_of(text: str) -> Split | None:
    """Return the split that a text names; None for the even one.

    Args:
        text: ``even``, ``dirichlet=ALPHA`` or ``shards=N``.

    Raises:
        ConfigError: it names none, or its number is none.
    """
    name, _, number = text.partition("=")
    if text == EVEN:
        return None
    if name not in ("dirichlet", "shards"):
        raise ConfigError(f"there is no such split (split: {text}); take even, dirichlet=ALPHA or shards=N")
    try:
        value = float(number) if name == "dirichlet" else int(number)
    except ValueError as problem:
        raise ConfigError(f"a split has a number (split: {text}); such as dirichlet=0.1, or shards=2") from problem
    return Dirichlet(value) if name == "dirichlet" else Shards(int(value))


def _shuffled(members: Tensor, seed: int, place: int) -> Tensor:
    return members[torch.randperm(len(members), generator=generator(seed, "split", place))]
