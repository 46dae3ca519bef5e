"""What a mixing turn does to one unit's vector."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from stalegrid.consensus.averaging import ParameterAveraging
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import PARAMETERS, Averaging
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import Message
from stalegrid.stages.weights import Weights

torch.set_num_threads(1)

INF = math.inf


class Observed(nn.Module):
    """One parameter, extremes that are infinite until the first batch, and an integer."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("extremes", torch.tensor([INF, -INF]))
        self.register_buffer("count", torch.tensor(3))


def mixed(own: nn.Module, other: nn.Module) -> Weights:
    """Return a module's weights after a turn with another group at equal shares."""
    weights = Weights(own)
    exchange = ParameterAveraging(Averaging(mixing_matrix("complete", 2), False, 1, 0, 8), weights)
    tag = Tag(Edge(PARAMETERS, Unit(1, 0), Unit(0, 0)), 0)
    exchange.step(Action(Kind.SHARE, 0), [])
    theirs = Weights(other)
    exchange.step(Action(Kind.MIX, 0, (tag,)), [Message(tag, 0, (theirs.flat[: theirs.mixed],))])
    return weights


def of(w: list[float], extremes: list[float]) -> Observed:
    made = Observed()
    with torch.no_grad():
        made.w.copy_(torch.tensor(w))
        made.extremes.copy_(torch.tensor(extremes))
    return made


@pytest.mark.parametrize(
    ("own", "other", "after"),
    [
        ([INF, -INF], [INF, -INF], [INF, -INF]),
        ([1.0, -INF], [3.0, -INF], [2.0, -INF]),
        ([1.0, 4.0], [INF, 6.0], [1.0, 5.0]),
        ([INF, 4.0], [1.0, 6.0], [INF, 5.0]),
        ([INF, -INF], [-INF, INF], [INF, -INF]),
    ],
)
def test_an_infinity_in_a_buffer_has_no_mean(own: list[float], other: list[float], after: list[float]) -> None:
    module = of([1.0, 2.0], own)
    mixed(module, of([3.0, 6.0], other))
    assert module.extremes.tolist() == after
    assert module.w.tolist() == [2.0, 4.0]
    assert module.count.item() == 3


def test_a_parameter_that_is_not_finite_is_not_hidden() -> None:
    module = of([1.0, 2.0], [0.0, 0.0])
    mixed(module, of([math.nan, INF], [0.0, 0.0]))
    assert math.isnan(module.w[0].item())
    assert module.w[1].item() == INF


def vector_of(layer: nn.Module) -> Tensor:
    made: Tensor = layer.parametrizations.weight[0]._u
    return made


def test_singular_vectors_are_ones_own() -> None:
    torch.manual_seed(0)
    own, other = spectral_norm(nn.Linear(3, 3)), spectral_norm(nn.Linear(3, 3))
    before, bias = vector_of(own).clone(), (own.bias + other.bias) / 2
    assert not torch.equal(vector_of(own), vector_of(other))
    mixed(own, other)
    assert torch.equal(vector_of(own), before)
    assert torch.allclose(own.bias, bias)
