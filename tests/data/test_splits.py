"""What each group has for its own, whoever deals it."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from stalegrid.data.splits import Dealt, Dirichlet, Shards, Split, split_of
from stalegrid.errors import ConfigError

LABELS = torch.randint(-2, 5, (500,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("groups", [2, 3, 7])
@pytest.mark.parametrize(
    "split", [Dirichlet(0.1), Dirichlet(1), Dirichlet(1e-300), Dirichlet(1e300), Shards(1), Shards(3)]
)
def test_every_sample_is_dealt_once_and_counted(split: Split, groups: int) -> None:
    dealt = Dealt.of(split, LABELS, groups, seed=4)
    assert torch.cat(dealt.samples).sort().values.equal(torch.arange(500))
    assert all(own.equal(own.sort().values) for own in dealt.samples)
    assert dealt.labels == tuple(sorted(set(LABELS.tolist()))) == (-2, -1, 0, 1, 2, 3, 4)
    for own, counts in zip(dealt.samples, dealt.counts, strict=True):
        assert counts == tuple(LABELS[own].tolist().count(label) for label in dealt.labels)


def test_it_is_a_function_of_seed_labels_and_groups() -> None:
    code = (
        "import torch; from stalegrid.data.splits import Dealt, Dirichlet, Shards;"
        "labels = torch.arange(60) % 4;"
        "print([Dealt.of(split, labels, 3, 5).digest for split in (Dirichlet(0.3), Shards(2))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    labels = torch.arange(60) % 4
    assert found == str([Dealt.of(split, labels, 3, 5).digest for split in (Dirichlet(0.3), Shards(2))])
    for split in (Dirichlet(0.3), Shards(2)):
        own = Dealt.of(split, labels, 3, 5).digest
        others = [(labels, 3, 6), (labels, 2, 5), ((labels + 1) % 4, 3, 5)]
        assert own not in [Dealt.of(split, *other).digest for other in others]


def test_the_smaller_alpha_the_fewer_groups_share_a_label() -> None:
    """The largest share of a label, averaged over labels: near 1 for small, near 1/S for large."""

    def largest(alpha: float) -> float:
        counts = np.array([Dealt.of(Dirichlet(alpha), LABELS, 4, seed).counts for seed in range(20)])
        return float((counts.max(axis=1) / counts.sum(axis=1)).mean())

    found = [largest(alpha) for alpha in (0.01, 0.1, 1, 10, 1000)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.95
    assert found[-1] < 0.3


def test_proportions_have_the_moments_of_dirichlet() -> None:
    """Mean 1/S and variance (S-1)/(S^2 (S alpha + 1)) of every share, within four standard errors and rounding."""
    alpha, groups, draws = 0.5, 3, 4000
    labels = torch.zeros(100_000, dtype=torch.int64)
    split = Dirichlet(alpha)
    ends = np.array([[*split._cuts(len(labels), groups, seed, 0), len(labels)] for seed in range(draws)])
    shares = np.diff(ends, axis=1, prepend=0) / len(labels)
    variance = (groups - 1) / groups**2 / (groups * alpha + 1)
    np.testing.assert_allclose(shares.mean(axis=0), 1 / groups, atol=4 * (variance / draws) ** 0.5)
    np.testing.assert_allclose(shares.var(axis=0), variance, rtol=0.08)


def test_shards_are_runs_of_sorted_samples() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 1, 1, 0])
    dealt = Dealt.of(Shards(2), labels, 2, seed=0)
    runs = [{1, 3}, {7, 2}, {5, 6}, {0, 4}]
    assert {frozenset(own.tolist()) for own in dealt.samples} <= {
        frozenset(one | other) for one, other in itertools.combinations(runs, 2)
    }
    assert len({Dealt.of(Shards(2), labels, 2, seed).digest for seed in range(60)}) == 6


def test_shards_differ_by_a_sample_at_most() -> None:
    dealt = Dealt.of(Shards(1), LABELS, 7, seed=1)
    assert {len(own) for own in dealt.samples} == {500 // 7, 500 // 7 + 1}


@pytest.mark.parametrize("labels", [torch.arange(3), torch.empty(0, dtype=torch.int64)])
def test_more_shards_than_samples_are_refused(labels: Tensor) -> None:
    with pytest.raises(ConfigError, match=rf"more shards than samples .*groups: 2, samples: {len(labels)}\)"):
        Dealt.of(Shards(2), labels, 2, 0)


def test_names() -> None:
    assert split_of("even") is None
    assert split_of("dirichlet=0.1") == Dirichlet(0.1)
    assert split_of("shards=2") == Shards(2)
    for text in ("dirichlet=0", "dirichlet=-1", "dirichlet=inf", "dirichlet=nan"):
        with pytest.raises(ConfigError, match=r"ALPHA is a number above 0 \(split: dirichlet="):
            split_of(text)
    for text in ("shards=0", "shards=-3"):
        with pytest.raises(ConfigError, match=rf"at least one shard \(split: {text}\)"):
            split_of(text)
    for text in ("dirichlet", "shards", "dirichlet=", "shards=1.5", "dirichlet=few"):
        with pytest.raises(ConfigError, match=rf"a split has a number \(split: {text}\)"):
            split_of(text)
    for text in ("", "odd", "even=1", "Dirichlet=1"):
        with pytest.raises(ConfigError, match=rf"no such split \(split: {text}\); take even"):
            split_of(text)


def test_proportions_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ConfigError, match="take a smaller ALPHA"):
        Dealt.of(Dirichlet(1e308), LABELS, 4, 0)
