import pytest
import torch

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.middle import middle


def vectors(groups: int) -> dict[int, torch.Tensor]:
    draw = torch.Generator().manual_seed(groups)
    return {s: torch.rand(50, generator=draw, dtype=torch.float64) for s in range(groups)}


@pytest.mark.parametrize(("groups", "sizes"), [(3, (1, 1, 1)), (3, (6, 2, 4)), (5, (1, 2, 3, 4, 5))])
def test_all_that_are_joined_have_the_same_mean_to_the_bit(groups: int, sizes: tuple[int, ...]) -> None:
    rows = mixing_matrix("complete", groups, sizes).weights(0)
    found = [middle(vectors(groups), dict(enumerate(map(float, row))), sizes) for row in rows]
    assert all(torch.equal(found[0], other) for other in found)
    expected = sum(size * vector for size, vector in zip(sizes, vectors(groups).values(), strict=True))
    torch.testing.assert_close(found[0], expected / sum(sizes), rtol=1e-15, atol=0)


def test_other_rows_are_taken_as_they_are_in_the_order_of_the_groups() -> None:
    one, other, third = vectors(3).values()
    shares = {0: 0.5, 1: 0.25, 2: 0.25}
    backwards = dict(reversed(vectors(3).items()))
    assert torch.equal(middle(backwards, shares, (1, 1, 1)), (one * 0.5 + other * 0.25) + third * 0.25)
