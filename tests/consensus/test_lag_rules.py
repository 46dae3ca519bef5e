"""Which rule for what is late, what it keeps, and what is refused."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stalegrid.consensus.choose import check_turns, turns_of
from stalegrid.consensus.lag_rules import averaging, check_rule, elements, remembered
from stalegrid.consensus.mixing import Turns, Vectors
from stalegrid.consensus.mixings import AdaptThenCombine, CombineWhileAdapt, GradientMean
from stalegrid.consensus.rounds import Averaging
from stalegrid.consensus.settings import MixingSettings
from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import Message
from stalegrid.stages.weights import StageLayout, Weights


def turns(groups: int = 3, updates: int = 60, **asked: Any) -> Turns:
    return turns_of(MixingSettings(**asked), groups, updates, seed=3)


def lazy(groups: int, own: float) -> list[list[float]]:
    """Return a matrix with an eigenvalue of 1 and others that are all alike."""
    rest = (1 - own) / (groups - 1)
    return [[own if s == r else rest for r in range(groups)] for s in range(groups)]


REFUSED: dict[str, tuple[int, dict[str, Any], str]] = {
    "complete": (
        3,
        {"lag_rule": "delta", "lag": 1},
        r"groups would drift apart \(mixing.lag_rule: delta, lag: 1, period: 1, the mixing matrix has an eigenvalue "
        r"-?[0-9.e-]+, and 1 minus it, 1, must be below 1\); take a period above the lag",
    ),
    "ring": (4, {"lag_rule": "delta", "lag": 1}, r"eigenvalue -0.333333, and 1 minus it, 1.33333, must be below 1\)"),
    "later": (3, {"lag_rule": "delta", "lag": 2, "topology": lazy(3, 0.55)}, r"0.675, must be below 0.618034"),
    "by turns": (4, {"lag_rule": "delta", "lag": 1, "topology": "one-peer-exponential"}, "change from turn to turn"),
    "ema by turns": (
        4,
        {"lag_rule": "ema", "lag": 1, "period": 2, "topology": "one-peer-exponential"},
        "change from turn to turn",
    ),
    "ema of all": (3, {"lag_rule": "ema", "lag": 1}, r"mixed again before .*sparse: 1.0, so every 1 updates"),
    "too large a share": (3, {"lag_rule": "ema", "lag": 10, "sparse": 0.4}, r"sparse: 0.4, so every 3 updates"),
    "delta of too large a share": (3, {"lag_rule": "delta", "lag": 4, "sparse": 0.25}, r"so every 4 updates"),
    "parts in a ring": (4, {"lag_rule": "ema", "lag": 2, "sparse": 0.2}, r"1.33333, must be at most 1\)"),
    "ema at once": (3, {"lag_rule": "ema"}, r"ema estimates how far .*lag: 0\); take a lag"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_drives_groups_apart_is_refused_before_the_start(name: str) -> None:
    groups, asked, text = REFUSED[name]
    with pytest.raises(ConfigError, match=text):
        CombineWhileAdapt().lateral(turns(groups, **asked))


ALLOWED: dict[str, tuple[int, dict[str, Any]]] = {
    "own current": (4, {"lag": 5, "topology": "one-peer-exponential", "sparse": 0.5}),
    "delta at once": (4, {"lag_rule": "delta", "topology": "one-peer-exponential"}),
    "delta below the period": (4, {"lag_rule": "delta", "lag": 3, "period": 4, "topology": "one-peer-exponential"}),
    "delta of lazy groups": (3, {"lag_rule": "delta", "lag": 2, "topology": lazy(3, 0.6)}),
    "delta of parts": (3, {"lag_rule": "delta", "lag": 3, "sparse": 0.25}),
    "ema of parts": (5, {"lag_rule": "ema", "lag": 10, "sparse": 0.05, "topology": "complete"}),
    "ema below the period": (4, {"lag_rule": "ema", "lag": 2, "period": 3}),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_brings_groups_together_is_not(name: str) -> None:
    groups, asked = ALLOWED[name]
    CombineWhileAdapt().lateral(turns(groups, **asked))


def test_groups_that_are_left_are_looked_at_again() -> None:
    """Metropolis weights on what is left of a graph have other eigenvalues than a matrix that was given."""
    five = turns(
        5,
        lag_rule="delta",
        lag=1,
        topology=[[0.5 if abs(s - r) in (0,) else 0.125 for r in range(5)] for s in range(5)],
    )
    check_rule(five)
    with pytest.raises(ConfigError, match="would drift apart"):
        check_rule(five.only(frozenset({3, 4})))


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=rf"mixing.sparse: {share}\); take one above 0 and up to 1"):
        turns(1, sparse=share)


class Own(CombineWhileAdapt):
    """A rule of the user's."""


@pytest.mark.parametrize("mixing", [Own(), GradientMean()])
@pytest.mark.parametrize("asked", [{"lag_rule": "delta"}, {"sparse": 0.5}])
def test_mixings_that_know_no_rules_and_parts_are_refused_with_them(mixing: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="combine-while-adapt and adapt-then-combine alone"):
        check_turns(mixing, turns(**asked), momentum=False)
    check_turns(mixing, turns(lag=2), momentum=True)
    check_turns(AdaptThenCombine(), turns(**asked), momentum=False)


@pytest.mark.parametrize("asked", [{"lag_rule": "ema", "lag": 1, "period": 2}, {"sparse": 0.5}])
def test_momentum_is_mixed_whole_or_not_at_all(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="momentum is not mixed by parts or by lag rule ema"):
        check_turns(CombineWhileAdapt(), turns(**asked), momentum=True)
    check_turns(CombineWhileAdapt(), turns(lag_rule="delta"), momentum=True)


class Net(nn.Module):
    """Parameters and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.norm = nn.BatchNorm1d(3)


KEPT: list[dict[str, Any]] = [
    {"lag": 3},
    {"lag_rule": "delta"},
    {"lag_rule": "delta", "lag": 3, "topology": lazy(3, 0.9)},
    {"lag_rule": "delta", "lag": 5, "period": 2, "topology": lazy(3, 0.9)},
    {"sparse": 0.3, "lag": 2},
    {"sparse": 0.3, "lag": 9, "lag_rule": "own-current"},
    {"lag_rule": "delta", "sparse": 0.2, "lag": 4},
    {"lag_rule": "ema", "sparse": 0.2, "lag": 4},
    {"lag_rule": "ema", "lag": 2, "period": 3},
]


@pytest.mark.parametrize("adapt_first", [False, True])
@pytest.mark.parametrize("asked", KEPT, ids=str)
def test_what_is_kept_and_sent_is_what_the_closed_forms_say(asked: dict[str, Any], adapt_first: bool) -> None:
    """A unit walks through its actions on messages made by hand."""
    weights, when = Weights(Net()), turns(**asked)
    vectors = Vectors(StageLayout.of(weights), weights.trained, momentum=False)
    rounds = Averaging(when.mixing, adapt_first, when.period, when.lag, when.updates)
    exchange = averaging(when, rounds, 0, weights, None, torch.Tensor.mul_)
    unit, most = Unit(0, 0), 0
    for n in range(when.updates):
        for action, version in [
            *((action, n) for action in rounds.opening(unit, n)),
            *((action, n + 1) for action in rounds.after_update(unit, n)),
        ]:
            weights.version = version
            inbox = [
                Message(tag, tag.index + adapt_first, (torch.zeros(elements(when, vectors)),)) for tag in action.needs
            ]
            sent = exchange.step(action, inbox)
            assert all(len(message.tensors[0]) == elements(when, vectors) for message in sent)
            most = max(most, exchange.nbytes)
    assert most == remembered(when, vectors)


@pytest.mark.parametrize("gap", [0.3, 0.7, 0.99])
def test_no_order_of_fresh_and_stale_mixes_of_an_element_makes_more_of_a_distance(gap: float) -> None:
    """With parts an element is mixed at most once between a snapshot and its mix: why eigenvalues of 0 and more do."""
    fresh, stale = np.array([[1 - gap, 0], [1, 0]]), np.array([[1, -gap], [1, 0]])
    for order in itertools.product((fresh, stale), repeat=9):
        state, most = np.array([1.0, 1.0]), 0.0
        for step in order:
            state = step @ state
            most = max(most, abs(state[0]))
        assert most <= 1.0


@pytest.mark.parametrize("rule", ["delta", "ema"])
def test_groups_that_only_mix_come_together_by_parts(rule: str) -> None:
    found = [_left(rule, share) for share in (0.05, 1 / 11)]
    assert max(found) < 1e-3


def _left(rule: str, share: float) -> float:
    """Return how far two groups are from their mean that do nothing but mix, of 1, after many cycles."""
    when = turns(2, 1200, lag_rule=rule, lag=10, sparse=share)
    rounds = Averaging(when.mixing, False, 1, 10, when.updates)
    units, weights = [Unit(s, 0) for s in range(2)], [Weights(nn.Linear(30, 10, bias=False)) for _ in range(2)]
    for s, w in enumerate(weights):
        w.flat[: w.trained] = 1.0 - 2.0 * s
    exchanges = [averaging(when, rounds, 0, w, None, torch.Tensor.mul_) for w in weights]
    sent: dict[Tag, Message] = {}
    for n in range(when.updates):
        for unit, exchange in zip(units, exchanges, strict=True):
            for action in rounds.opening(unit, n):
                sent |= {m.tag: m for m in exchange.step(action, [])}
        for unit, w, exchange in zip(units, weights, exchanges, strict=True):
            w.version = n + 1
            for action in rounds.after_update(unit, n):
                exchange.step(action, [sent.pop(tag) for tag in action.needs])
    one, other = (w.entries[0].view(w.flat) for w in weights)
    return float((one - other).abs().max()) / 2
