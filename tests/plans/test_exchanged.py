"""What groups send of a stage that is known as bytes, held against plans that know its tensors."""

from functools import partial
from typing import Any

import pytest
from torch import nn

from stalegrid.consensus import MixingSettings, find_mixing, turns_of
from stalegrid.methods import METHODS, find_grid
from stalegrid.plans.exchanged import Exchanged
from stalegrid.plans.traffic import vectors_sent
from tests import cases


def flat() -> nn.Sequential:
    """Return a model whose parameters are one tensor."""
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 10, bias=False))


SENT: dict[str, dict[str, Any]] = {
    "whole": {"mixing": MixingSettings()},
    "with momentum": {"mixing": MixingSettings(momentum=True)},
    "sparse": {"mixing": MixingSettings(sparse=0.3)},
    "parts of gradients": {"method": "data-parallel"},
    "pairs": {"method": "noloco", "mixing": MixingSettings(period=2)},
    "with what tracks gradients": {"method": "gradient-tracking"},
    "with a weight": {"method": "sgp"},
}


@pytest.mark.parametrize("name", SENT)
def test_it_is_what_a_plan_says_that_knows_the_tensors(name: str) -> None:
    settings = cases.make_settings(**({"method": "pham-ahn", "groups": 4} | SENT[name]))
    plan = cases.make_plan(cases.make_task(model=cases.build(flat)), settings)
    exchanged = Exchanged(plan.mixing, plan.turns, settings.mixing.momentum)
    edges = [edge for edge in plan.messages.edges() if edge.source.group != edge.target.group]
    parameters = 4 * sum(p.numel() for p in flat().parameters())
    assert edges
    assert {edge: exchanged.nbytes(edge, parameters) for edge in edges} == {edge: plan.nbytes(edge) for edge in edges}


BY_METHOD = {
    "none": {"pipedream": 0.0, "dsp": 0.0},
    "ring": {"pham-ahn": 2.0, "sgp": 2.0, "exact-diffusion": 2.0, "choco": 2.0},
    "and as much that tracks the gradient": {"gradient-tracking": 4.0},
    "parts to all, means from all": {"data-parallel": 1.5, "1f1b": 1.5},
    "the same, now and then": {"diloco": 1.5 / 500},
    "all to all, now and then": {"streaming-diloco": 3 / 100},
    "two to one, now and then": {"noloco": 2 / 100},
    "a twentieth to all": {"asyncmesh": 3 / 20},
    "pairs": {"ad-psgd": 1.0},
}


@pytest.mark.parametrize(("name", "vectors"), [pair for same in BY_METHOD.values() for pair in same.items()])
def test_a_method_sends_so_many_vectors_among_four_groups(name: str, vectors: float) -> None:
    method = find_grid(name)
    turns = partial(turns_of, MixingSettings(), usual=method.turns, mixing=find_mixing(method.mixing))
    # What travels beside them, such as a weight, is nothing to a million numbers.
    assert vectors_sent(Exchanged(find_mixing(method.mixing), turns(4, 1))) == pytest.approx(vectors, rel=1e-5)


def test_all_reduce_sends_less_than_two_vectors_however_many_groups_there_are() -> None:
    mixing = find_mixing("all-reduce")
    sent = [
        vectors_sent(Exchanged(mixing, turns_of(MixingSettings(), groups, 1, mixing=mixing))) for groups in (1, 2, 8)
    ]
    assert sent == pytest.approx([0, 1, 1.75], rel=1e-5)


def test_every_method_of_several_groups_is_known_here() -> None:
    known = {name for same in BY_METHOD.values() for name in same}
    several = {m.name for m in METHODS if find_mixing(m.mixing).averages_parameters and m.max_groups is None}
    assert several <= known
