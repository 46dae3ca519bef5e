"""Networks for images in three stages: the plain model to the bit, as the page of architectures says."""

import pytest
import torch
from torch.utils.data import DataLoader

from tests.models import vision
from tests.models.holding import Samples, differing, hold, plain
from tests.models.page import keep, rows

torch.set_num_threads(1)


SOME = list(vision.MODELS)[::4]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (name not in SOME)) for name in vision.MODELS]
)
def test_ten_updates_in_three_stages_are_those_of_a_plain_loop(name: str) -> None:
    keep(name, hold(vision.made(name), vision.samples(name)), torch)


def test_the_page_has_all_networks_and_all_work() -> None:
    assert set(vision.MODELS) <= rows().keys()
    assert [name for name in vision.MODELS if rows()[name][-1] != "to the bit"] == []


def test_one_bit_in_one_parameter_is_seen() -> None:
    model, other = vision.made("AlexNet"), vision.made("AlexNet")
    loader = DataLoader(Samples(vision.samples("AlexNet")), batch_size=4)
    with torch.no_grad():
        bias = other.get_parameter("classifier.2.bias")
        bias[0] = bias[0].nextafter(torch.tensor(1.0))
    expected = plain(model, loader)
    assert differing(plain(vision.made("AlexNet"), loader), expected) == []
    # What is rounded away in an update depends on the processor; what has been computed of that bit does not.
    assert "outputs" in differing(plain(other, loader), expected)
