import numpy as np
import pytest

from stalegrid.consensus.choose import turns_of
from stalegrid.consensus.pairs import RandomPairs
from stalegrid.consensus.settings import MixingSettings
from stalegrid.errors import ConfigError


@pytest.mark.parametrize("groups", range(1, 8))
def test_every_group_has_one_partner_but_for_the_odd_one(groups: int) -> None:
    pairs = RandomPairs(groups, seed=3)
    for turn in range(20):
        partners = {s: pairs.sources(s, turn) for s in range(groups)}
        assert sorted(map(len, partners.values())) == [0] * (groups % 2) + [1] * (groups - groups % 2)
        for s, found in partners.items():
            assert found == pairs.targets(s, turn)
            assert all(partners[r] == (s,) and r in pairs.neighbours(s) for r in found)
        weights = pairs.weights(turn)
        assert np.array_equal(weights @ weights, weights)  # a projection
        assert [list(np.flatnonzero(row)) for row in weights] == [sorted({s, *partners[s]}) for s in range(groups)]


def test_pairs_are_drawn_anew_by_the_seed_and_the_turn() -> None:
    def drawn(seed: int) -> list[tuple[int, ...]]:
        return [RandomPairs(6, seed).sources(0, turn) for turn in range(40)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert set(drawn(1)) == {(r,) for r in range(1, 6)}


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5, 8])
def test_the_gap_is_what_turns_leave_of_the_square_of_a_distance(groups: int) -> None:
    pairs = RandomPairs(groups, seed=0)
    expected = np.mean([pairs.weights(turn) for turn in range(4000)], axis=0) - 1 / groups
    assert (1 - pairs.spectral_gap) ** 2 == pytest.approx(np.linalg.norm(expected, 2), abs=0.04)


def test_they_are_a_topology() -> None:
    asked = MixingSettings(topology="random-pairs")
    assert turns_of(asked, 4, 9, seed=5).matrix == RandomPairs(4, 5)
    with pytest.raises(ConfigError, match=r"unlike sizes \(topology: random-pairs, batch_size: 4,2\); take another"):
        turns_of(asked, 2, 9, [4, 2])
    with pytest.raises(ConfigError, match=r"cannot close around groups that are gone .*gone: \[1\]"):
        turns_of(asked, 4, 9).only(frozenset({1}))
