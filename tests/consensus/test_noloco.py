"""What the outer optimizer of pairs does to one unit's vector."""

import math

import pytest
import torch

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.mixing import Turns, Vectors
from stalegrid.consensus.noloco import NoLoCo, PairStep
from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import Unit
from stalegrid.stages.weights import StageLayout, Weights
from tests.consensus.test_outer import Groups, One

torch.set_num_threads(1)


def test_a_pair_goes_on_together_and_towards_each_other() -> None:
    groups = Groups(NoLoCo(rate=0.5, momentum=0.5), [One(0.0), One(4.0)])
    # mean(w - phi) = mean(1, 3) = 2, mean(phi) = 2: m = 0.5 2 + 0.5 (2 - 0), 0.5 2 + 0.5 (2 - 4)
    assert [float(w[0]) for w in groups.update(0, [1.0], [3.0])] == [2.0, 4.0]
    # mean(w - phi) = 1, mean(phi) = 3: m = 0.5 2 + 0.5 1 + 0.5 (3 - 2), 0.5 0 + 0.5 1 + 0.5 (3 - 4)
    assert [float(w[0]) for w in groups.update(1, [2.0], [0.0])] == [4.0, 4.0]


def test_whoever_has_no_partner_goes_on_alone() -> None:
    groups = Groups(NoLoCo(rate=0.5, momentum=0.5), [One(1.0)])
    assert float(groups.update(0, [2.0])[0][0]) == 2.0
    assert float(groups.update(1, [2.0])[0][0]) == 3.5


def test_it_sends_parameters_and_where_they_began() -> None:
    weights = Weights(One(1.0, 2.0, statistic=3.0))
    vectors = Vectors(StageLayout.of(weights), 2, momentum=False)
    turns = Turns(mixing_matrix("complete", 2), 1, 0, 9)
    (spec,) = NoLoCo().layout(Edge("parameters", Unit(0, 0), Unit(1, 0)), turns, vectors)
    assert spec.shape == (weights.mixed + weights.trained,)


def test_running_statistics_are_averaged() -> None:
    groups = Groups(NoLoCo(), [One(0.0, statistic=1.0), One(0.0, statistic=4.0)])
    groups.update(0, [0.0], [0.0])
    assert [float(weights.flat[weights.trained]) for weights in groups.weights] == [2.5, 2.5]


def test_what_is_told_is_of_heavy_balls_momentum() -> None:
    groups = Groups(NoLoCo(rate=1.0, momentum=0.5), [One(0.0, 0.0)])
    (exchange,) = groups.exchanges
    assert isinstance(exchange, PairStep)
    groups.update(0, [1.0, 0.0])
    groups.update(1, [1.0, 1.0])
    rho = math.sqrt(0.5)
    assert exchange.told() == pytest.approx((rho, 1 / (1 - 0.5 * rho)))
