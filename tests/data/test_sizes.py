import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stalegrid.data.settings import TrainingSettings
from stalegrid.data.sizes import Sizes, sizes_of
from stalegrid.errors import ConfigError


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 5))
def test_groups_lie_one_after_another_and_share_in_proportion(each: list[int], micro: int, times: int) -> None:
    sizes = Sizes(tuple(size * micro for size in each), micro)
    for samples in (sizes.together, times * sizes.step):
        shares = [sizes.share(group, samples) for group in range(len(each))]
        assert [number for share in shares for number in share] == list(range(samples))
        assert all(
            len(share) * sizes.together == samples * size for share, size in zip(shares, sizes.each, strict=True)
        )
        assert all(len(share) % micro == 0 for share in shares)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 3))
def test_no_fewer_samples_can_be_shared_out(each: list[int], micro: int) -> None:
    sizes = Sizes(tuple(size * micro for size in each), micro)

    def parts(samples: int) -> bool:
        return all(samples * size % (sizes.together * micro) == 0 for size in sizes.each)

    assert [samples for samples in range(1, 2 * sizes.step + 1) if parts(samples)] == [sizes.step, 2 * sizes.step]
    assert sizes.step == len(each) * micro if len(set(each)) == 1 else sizes.step % math.lcm(micro) == 0


def test_each_size_has_its_first_group() -> None:
    assert Sizes((4, 2, 4, 6, 2)).unlike == [0, 1, 3]
    assert Sizes((4, 2, 4, 6, 2), 2).whole == {1, 2, 3}
    assert (Sizes((4, 2)).largest, Sizes((4, 2)).together) == (4, 6)


def test_one_number_is_that_of_all_groups() -> None:
    assert sizes_of(3, 4) == TrainingSettings(batch_size=[3, 3, 3, 3]).sizes(4) == (3, 3, 3, 3)
    with pytest.raises(ConfigError, match=r"one for each group \(batch_size: 1,2, groups: 3\)"):
        sizes_of([1, 2], 3)
    TrainingSettings(batch_size=[3, 3]).check_alike("")
    with pytest.raises(ConfigError, match=r"^no \(training.batch_size: 3,4\); give one number"):
        TrainingSettings(batch_size=[3, 4]).check_alike("no")


def test_what_makes_no_batches_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 micro-batches do not divide a batch of 4 samples"):
        Sizes((6, 4), 3)
    with pytest.raises(ConfigError, match="batch_size must be at least 1, not -1"):
        Sizes((6, -1))
