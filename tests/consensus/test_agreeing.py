"""The mean in parts is that of whole vectors, to the bit, and so is what running statistics move by."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from stalegrid.consensus.agreeing import Agreed, Agreeing, InParts, InWhole, in_parts
from stalegrid.consensus.matrices import MixingMatrix, mixing_matrix
from stalegrid.consensus.mixing import Turns
from stalegrid.consensus.pairs import RandomPairs
from stalegrid.consensus.rounds import PARAMETERS_PART, Reduced, Together
from stalegrid.consensus.snapshots import Snapshots
from stalegrid.errors import StalenessExceeded
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import Message
from stalegrid.stages.weights import Weights

torch.set_num_threads(1)


class Some(nn.Module):
    def __init__(self, numbers: Tensor, statistics: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(numbers)
        self.register_buffer("statistics", statistics)


def weights(trained: int, statistics: int, groups: int, seed: int) -> list[Weights]:
    draw = torch.Generator().manual_seed(seed)
    return [
        Weights(Some(torch.randn(trained, generator=draw), torch.randn(statistics, generator=draw)))
        for _ in range(groups)
    ]


def agreed(rounds: Together, ways: list[Agreeing]) -> tuple[list[Agreed], list[Message]]:
    """Let all units exchange once; what each has, and what travelled."""
    under_way: dict[Tag, Message] = {}
    travelled: list[Message] = []
    actions = [list(rounds.after_update(Unit(s, 0), 0)) for s in range(len(ways))]
    found = []
    for step in zip(*actions, strict=True):
        for way, action in zip(ways, step, strict=True):
            inbox = [under_way.pop(tag) for tag in action.needs]
            if action.kind is Kind.MIX:
                found.append(way.agree(action, inbox))
            else:
                sent = way.send(action, inbox)
                under_way |= {message.tag: message for message in sent}
                travelled += sent
    assert not under_way
    return found, travelled


@given(
    trained=st.integers(0, 9),
    statistics=st.integers(0, 3),
    sizes=st.lists(st.integers(1, 4), min_size=3, max_size=5),
    seed=st.integers(0, 99),
)
def test_parts_make_what_whole_vectors_make(trained: int, statistics: int, sizes: list[int], seed: int) -> None:
    matrix = mixing_matrix("complete", len(sizes), sizes)
    have = weights(trained, statistics, len(sizes), seed)
    together, reduced = (kind(matrix, True, 1, 0, 1) for kind in (Together, Reduced))
    row = dict(enumerate(map(float, matrix.weights(0)[0])))
    whole, _ = agreed(together, [InWhole(Snapshots(together, Unit(s, 0)), sizes, w) for s, w in enumerate(have)])
    parts, sent = agreed(reduced, [InParts(row, sizes, s, w) for s, w in enumerate(have)])
    for one, other, own in zip(whole, parts, have, strict=True):
        assert torch.equal(one.mean, other.mean)
        now = own.flat[own.trained : own.mixed]
        assert torch.equal(one.pulled(now), other.pulled(now))
    others, one = len(sizes) - 1, have[0]
    elements = 2 * one.trained + len(sizes) * (one.mixed - one.trained)
    assert sum(m.tensors[0].numel() for m in sent) == others * elements


def turns(matrix: Any, **changes: Any) -> Turns:
    return Turns(matrix, **{"period": 4, "lag": 0, "updates": 9, **changes})


def test_parts_are_made_where_all_take_the_same_mean_at_once_and_that_sends_less() -> None:
    assert in_parts(turns(mixing_matrix("complete", 3)))
    assert in_parts(turns(mixing_matrix("complete", 3, (1, 2, 3))))
    assert in_parts(turns(mixing_matrix("ring", 3)))  # all are neighbours
    assert not in_parts(turns(mixing_matrix("complete", 2)))
    assert not in_parts(turns(mixing_matrix("complete", 3), lag=1))
    assert not in_parts(turns(mixing_matrix("ring", 4)))
    assert not in_parts(turns(mixing_matrix("one-peer-exponential", 4)))
    assert not in_parts(turns(RandomPairs(4, 0)))
    lazy = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    assert not in_parts(turns(mixing_matrix(lazy, 3)))
    assert isinstance(turns(mixing_matrix(lazy, 3)).matrix, MixingMatrix)


@pytest.mark.parametrize("kind", [Kind.REDUCE, Kind.MIX])
def test_what_is_of_another_version_than_ones_own_is_refused(kind: Kind) -> None:
    (own,) = weights(3, 0, 1, 0)
    way = InParts(dict.fromkeys(range(3), 1 / 3), (1, 1, 1), 0, own)
    way.send(Action(Kind.SHARE, 0), [])
    tag = Tag(Edge(PARAMETERS_PART, Unit(1, 0), Unit(0, 0)), 0)
    do = way.send if kind is Kind.REDUCE else way.agree
    with pytest.raises(StalenessExceeded, match="version 7; one's own are of version 0"):
        do(Action(kind, 0, (tag,)), [Message(tag, 7, (torch.zeros(1),))])
