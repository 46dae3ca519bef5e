"""The same place in the data, in batches of another size."""

from hypothesis import given
from hypothesis import strategies as st

from stalegrid.transfer.position import Position


def test_an_epoch_stays_one() -> None:
    assert Position(25, 4, 10).into(Position(0, 8, 5)) == (Position(12, 8, 5), 4)
    assert Position(20, 4, 10).into(Position(0, 7, 5)) == (Position(10, 7, 5), 0)


def test_an_end_of_an_epoch_that_fills_no_update_is_no_reason_to_go_back() -> None:
    # 43 samples: 10 updates of 4 are an epoch, and so are 2 of 20.
    assert Position(19, 4, 10).into(Position(0, 20, 2)) == (Position(3, 20, 2), 16)
    # What an epoch of the other run leaves out is done with: it has no further update.
    assert Position(19, 2, 20).into(Position(0, 6, 5)) == (Position(5, 6, 5), 8)


@given(update=st.integers(0, 500), size=st.integers(1, 50), epoch=st.integers(1, 100))
def test_batches_of_the_same_size_go_on_where_they_were(update: int, size: int, epoch: int) -> None:
    assert Position(update, size, epoch).into(Position(0, size, epoch)) == (Position(update, size, epoch), 0)


@given(
    samples=st.integers(100, 1000), update=st.integers(0, 500), sizes=st.tuples(st.integers(1, 50), st.integers(1, 50))
)
def test_less_than_an_update_is_trained_twice(samples: int, update: int, sizes: tuple[int, int]) -> None:
    here, there = (Position(0, size, samples // size) for size in sizes)
    moved, twice = Position(update, here.samples, here.epoch).into(there)
    assert update // here.epoch <= moved.update / there.epoch <= update // here.epoch + 1
    # Less than an update, but at the end of an epoch, where one may have left out more.
    assert 0 <= twice < there.samples or moved.update % there.epoch == 0
