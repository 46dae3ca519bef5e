"""CHOCO on vectors, against the formula and what the paper says of it."""

import copy

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stalegrid.codecs.codec import Codec
from stalegrid.codecs.int8 import Int8
from stalegrid.codecs.topk import TopK
from stalegrid.consensus.choco import Choco, Compressed
from stalegrid.consensus.choose import find_mixing
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.mixing import Turns
from stalegrid.errors import ConfigError, StalenessExceeded
from stalegrid.programs import Action, Kind, Message, Unit
from stalegrid.stages import Weights

GROUPS = 4
NUMEL = 320


def turns_of(topology: str = "ring", groups: int = GROUPS, **changes: int) -> Turns:
    numbers = {"period": 1, "lag": 0, "updates": 1000} | changes
    return Turns(mixing_matrix(topology, groups), **numbers)


class Groups:
    """One stage in all groups, which exchange at once, with Q between them."""

    def __init__(self, gamma: float, codec: Codec | None, topology: str = "ring") -> None:
        generator = torch.Generator().manual_seed(0)
        modules = [nn.Linear(NUMEL, 1, bias=False, dtype=torch.float64) for _ in range(GROUPS)]
        for module in modules:
            module.weight.data = torch.randn(1, NUMEL, dtype=torch.float64, generator=generator)
        self.weights = [Weights(module) for module in modules]
        turns, self.codec, self.n = turns_of(topology), codec, 0
        mixing = Choco(gamma)
        self.rounds = mixing.lateral(turns)
        self.exchanges = [Compressed(self.rounds, w, gamma) for w in self.weights]

    @property
    def x(self) -> Tensor:
        return torch.stack([w.flat for w in self.weights])

    def exchange(self) -> None:
        due = {s: list(self.rounds.after_update(Unit(s, 0), self.n)) for s in range(GROUPS)}
        for w in self.weights:
            w.version = self.n + 1
        sent: dict[object, Message] = {}
        for s, exchange in enumerate(self.exchanges):
            for message in exchange.step(due[s][0], []):
                sent[message.tag] = self._coded(message)
                exchange.arrives(sent[message.tag])
        for s, exchange in enumerate(self.exchanges):
            exchange.step(due[s][1], [sent[tag] for tag in due[s][1].needs])
        self.n += 1

    def _coded(self, message: Message) -> Message:
        (q,) = message.tensors
        if self.codec is not None:
            q = self.codec.decode(self.codec.encode(q), q.numel(), q.dtype)
        return Message(message.tag, message.version, (q,))


@pytest.mark.parametrize("codec", [TopK(0.1), Int8(), None], ids=str)
@pytest.mark.parametrize("topology", ["ring", "star", "complete"])
def test_the_mean_stays_and_groups_meet(topology: str, codec: Codec | None) -> None:
    groups = Groups(0.2, codec, topology)
    before = groups.x
    for _ in range(150):
        groups.exchange()
    # To rounding, since sums of other numbers round otherwise: 150 rounds of float64.
    torch.testing.assert_close(groups.x.mean(0), before.mean(0), rtol=0.0, atol=1e-13)
    spread = (groups.x - groups.x.mean(0)).norm() / (before - before.mean(0)).norm()
    assert spread < 0.02, spread


def test_averaging_of_what_is_coded_would_not_keep_the_mean_nor_meet() -> None:
    """The control: the same codec on the parameters themselves."""
    codec, groups = TopK(0.1), Groups(0.2, None)
    x, shares = groups.x, torch.from_numpy(mixing_matrix("ring", GROUPS).matrices[0].copy())
    before = x.mean(0)
    for _ in range(150):
        coded = torch.stack([codec.decode(codec.encode(v), NUMEL, v.dtype) for v in x])
        x = x + 0.2 * (shares @ coded - x)
    assert (x.mean(0) - before).norm() > 0.1 * before.norm()


def test_without_a_loss_and_gamma_1_it_is_averaging() -> None:
    groups = Groups(1.0, None)
    shares = torch.from_numpy(mixing_matrix("ring", GROUPS).matrices[0].copy())
    for _ in range(5):
        due = shares @ groups.x
        groups.exchange()
        # xh + (x - xh) is x to rounding only, and sums have another order.
        torch.testing.assert_close(groups.x, due, rtol=1e-13, atol=1e-13)


def test_groups_that_are_alike_stay_alike_to_the_bit() -> None:
    groups = Groups(0.5, TopK(0.1))
    for w in groups.weights:
        w.flat.copy_(groups.weights[0].flat)
    before = groups.x
    for _ in range(5):
        groups.exchange()
    assert torch.equal(groups.x, before)


def test_what_is_known_is_state() -> None:
    one, other = Groups(0.3, Int8()), Groups(0.3, Int8())
    for _ in range(3):
        one.exchange()
    for w, own, into, exchange in zip(one.weights, one.exchanges, other.weights, other.exchanges, strict=True):
        into.flat.copy_(w.flat)
        exchange.load_state_dict(copy.deepcopy(own.state_dict()))
    other.n = one.n
    one.exchange()
    other.exchange()
    assert torch.equal(one.x, other.x)


def test_what_it_remembers_is_what_it_says() -> None:
    groups = Groups(0.3, None, "star")
    groups.exchange()
    kept = [[e._own, e._sent, *e._known.values()] for e in groups.exchanges]
    most = max(sum(t.numel() * t.element_size() for t in own if t is not None) for own in kept)
    assert most == (2 + GROUPS - 1) * NUMEL * 8


def test_another_version_is_refused() -> None:
    groups = Groups(0.3, None)
    rounds = groups.rounds
    share, mix = list(rounds.after_update(Unit(0, 0), 0))
    groups.exchanges[0].step(share, [])
    late = [Message(tag, 7, (torch.zeros(NUMEL, dtype=torch.float64),)) for tag in mix.needs]
    with pytest.raises(StalenessExceeded, match="of version 7; those here are of 0"):
        groups.exchanges[0].step(mix, late)
    assert mix == Action(Kind.MIX, 0, mix.needs)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (turns_of(lag=1), r"no published form with a lag \(mixing.lag: 1\); leave it out"),
        (turns_of("one-peer-exponential"), r"same neighbours in every turn.*of 2 turns\); take another one"),
        (turns_of(period=2000), r"would never mix \(period: 2000, updates: 1000\)"),
        (Turns(mixing_matrix("ring", 2, (4, 8)), 1, 0, 9), r"groups to be alike \(batch_size: 4,8\)"),
    ],
)
def test_what_has_no_published_form_is_refused(turns: Turns, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Choco().lateral(turns)


@pytest.mark.parametrize("gamma", ["0", "1.01", "-1"])
def test_gamma_has_bounds(gamma: str) -> None:
    with pytest.raises(ConfigError, match=r"gamma of choco is above 0 and at most 1 \(mixing: choco,gamma="):
        find_mixing(f"choco,gamma={gamma}")
    assert find_mixing("choco,gamma=0.25") == Choco(0.25)


def test_a_graph_that_is_not_regular_keeps_the_mean_too() -> None:
    shares = mixing_matrix(nx.path_graph(GROUPS), GROUPS).matrices[0]
    assert np.allclose(shares.sum(0), 1)
    groups = Groups(0.4, Int8(), "0-1,1-2,2-3")
    before = groups.x.mean(0)
    for _ in range(20):
        groups.exchange()
    torch.testing.assert_close(groups.x.mean(0), before, rtol=0.0, atol=1e-14)
