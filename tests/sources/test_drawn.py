"""Initial values are each parameter's own."""

import pytest
import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.seeds import drawing
from stalegrid.sources.drawn import CPU, Drawn
from stalegrid.sources.recording import record
from tests.sources.modules import various


def test_values_do_not_depend_on_which_are_made_nor_in_which_order() -> None:
    _, recording = record(various)
    names = list(recording.places)
    first = {name: Drawn(recording, 5).value(name) for name in names}
    drawn = Drawn(recording, 5)
    torch.manual_seed(99)
    again = {name: drawn.value(name) for name in reversed(names)}
    assert all(torch.equal(first[name], again[name]) for name in names)


def test_a_parameter_draws_by_the_seed_and_its_name() -> None:
    _, recording = record(lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)))
    value = Drawn(recording, 5).value("1.weight")
    with drawing(CPU, 5, "initial 1.weight", 0):
        expected = torch.empty(4, 3).uniform_(-(3**-0.5), 3**-0.5)
    assert torch.equal(value, expected)
    assert not torch.equal(value, Drawn(recording, 5).value("0.weight"))
    assert not torch.equal(value, Drawn(recording, 6).value("1.weight"))


def test_a_layer_more_changes_no_other_one() -> None:
    _, few = record(lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    _, more = record(lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)))
    assert torch.equal(Drawn(few, 0).value("1.weight"), Drawn(more, 0).value("1.weight"))


def test_what_several_are_made_of_is_drawn_once() -> None:
    _, recording = record(various)
    drawn = Drawn(recording, 0)
    assert torch.equal(drawn.value("own.inner.weight"), drawn.value("own.target.weight"))
    bias, weight = drawn.value("own.inner.bias"), drawn.value("own.inner.weight")
    assert torch.equal(bias[1:3], weight[:2].sum(1))
    assert torch.equal(bias[3:], drawn.value("own.target.bias")[3:])


def test_values_leave_the_generators_alone() -> None:
    _, recording = record(various)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    Drawn(recording, 0).value("lstm.weight_ih_l0")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_parameter_that_nothing_fills_is_refused() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.positions = nn.Parameter(torch.empty(3, 3))

    _, recording = record(Bare)
    with pytest.raises(ConfigError, match=r"nothing gives a parameter or buffer a value \(name: positions\)"):
        Drawn(recording, 0).check(recording.places)


def test_texts_tell_models_and_seeds_apart() -> None:
    texts = {
        Drawn(record(factory)[1], seed).text()
        for factory in (lambda: nn.Linear(2, 3), lambda: nn.Linear(3, 2), lambda: nn.Linear(2, 3).double())
        for seed in (0, 1)
    }
    assert len(texts) == 6
    assert Drawn(record(various)[1], 0).text() == Drawn(record(various)[1], 0).text()
