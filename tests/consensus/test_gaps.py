"""What of a neighbour's vector has no mean with one's own."""

import math

import torch
from torch import nn

from stalegrid.consensus.gaps import gap_to
from stalegrid.stages.weights import Weights


class Counted(nn.Module):
    """A parameter and three statistics, each on a cache line of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        for name in ("mean", "extreme", "count"):
            self.register_buffer(name, torch.zeros(1))


def vector_of(w: float, mean: float, extreme: float, count: float) -> torch.Tensor:
    vector = torch.zeros(64)
    vector[::16] = torch.tensor([w, mean, extreme, count])
    return vector


def test_a_gap_is_the_difference_and_an_infinite_statistic_has_none() -> None:
    weights = Weights(Counted())
    own, theirs = vector_of(1.0, 2.0, 0.0, 5.0), vector_of(3.0, 1.0, math.inf, 7.0)
    assert gap_to(theirs, own, weights.statistics)[::16].tolist() == [2.0, -1.0, 0.0, 2.0]
    assert gap_to(own, theirs, weights.statistics)[::16].tolist() == [-2.0, 1.0, 0.0, -2.0]
    assert own[32] == 0.0


def test_what_both_had_alike_in_the_past_is_not_held_back() -> None:
    weights = Weights(Counted())
    own, theirs = vector_of(1.0, 2.0, 1.0, 7.0), vector_of(1.0, 2.0, 0.0, 5.0)
    past = vector_of(0.0, 1.0, 1.0, 5.0)[weights.trained :]
    assert gap_to(theirs, own, weights.statistics, past)[::16].tolist() == [0.0, 0.0, -1.0, 0.0]


def test_a_parameter_that_is_infinite_is_not_hidden() -> None:
    weights = Weights(Counted())
    assert gap_to(vector_of(math.inf, 0, 0, 0), vector_of(0, 0, 0, 0), weights.statistics)[0] == math.inf
