"""What a loss must give."""

from typing import Any

import pytest
import torch

from stalegrid.objects import losses

W = torch.ones(3, requires_grad=True)
SUM = (W * 2).sum()


@pytest.mark.parametrize("count", [torch.tensor(3), torch.tensor(2.5), 4, 0, 1.5, torch.tensor(True)])
def test_a_sum_and_what_it_counts_are_parted(count: Any) -> None:
    assert losses.fault((SUM, count)) is None
    assert losses.counted((SUM, count))
    total, number = losses.parted((SUM, count))
    assert total is SUM
    assert number is not None
    assert (number.dtype, number.shape, float(number)) == (torch.float64, (), float(count))


def test_a_count_stays_what_it_was() -> None:
    count = torch.tensor(3.0, dtype=torch.float64)
    _, number = losses.parted((SUM, count))
    count.fill_(7.0)
    assert number is not None
    assert float(number) == 3


def test_a_mean_counts_nothing() -> None:
    assert losses.fault(SUM) is None
    assert not losses.counted(SUM)
    assert losses.parted(SUM) == (SUM, None)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ((SUM, W.detach()), r"one real number (shape: (3,)"),
        ((SUM, torch.tensor(1j)), "one real number"),
        ((SUM, SUM), "must not depend on what is trained"),
        ((SUM, "3"), "must be a number (it is: str)"),
        ((SUM, None), "must be a number (it is: NoneType)"),
        ((SUM, -1), "must be 0 or more (count: -1.0)"),
        ((SUM, float("nan")), "must be 0 or more (count: nan)"),
        ((W, 3), "one number, averaged over the samples, or a sum and its count (it is: (3,))"),
        ((SUM.detach(), 3), "the loss has no gradient"),
        ((3, SUM), "(it is: int)"),
        ((SUM, 3, 4), "(it is: tuple)"),
        ([SUM, 3], "(it is: list)"),
    ],
)
def test_what_is_neither_is_a_fault(loss: object, said: str) -> None:
    found = losses.fault(loss)
    assert found is not None
    assert said in found


def test_all_batches_have_losses_of_one_kind() -> None:
    for sums, loss in ((False, (SUM, 3)), (True, SUM)):
        assert "for some batches, and not for others" in str(losses.fault(loss, sums))
    assert losses.fault((SUM, 3), True) is None
    assert losses.fault(SUM, False) is None
