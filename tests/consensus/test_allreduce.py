import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from stalegrid.consensus.allreduce import GradientAveraging
from stalegrid.consensus.rounds import MEAN, PART, AllReduce
from stalegrid.engines.simulator import simulate
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.messages import Message
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import gpipe
from stalegrid.stages.weights import Weights

torch.set_num_threads(1)


class Member:
    """A group that gets its gradients out of nowhere and takes part in the exchange."""

    def __init__(self, groups: int, group: int, module: nn.Module, gradients: dict[int, list[Tensor | None]]) -> None:
        self.weights = Weights(module)
        self.exchange = GradientAveraging(dict.fromkeys(range(groups), 1.0), group, self.weights)
        self.gradients = gradients
        self.means: dict[int, list[Tensor | None]] = {}
        self.sent: list[Message] = []

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        if action.kind is Kind.BACKWARD:
            for p, g in zip(self.weights.trainable(), self.gradients[action.index], strict=True):
                p.grad = None if g is None else g.clone()
        elif action.kind is Kind.UPDATE:
            self.means[action.index] = [p.grad for p in self.weights.trainable()]
            self.weights.version += 1
        elif action.kind is not Kind.FORWARD:
            made = self.exchange.step(action, inbox)
            self.sent += made
            return made
        return []


def module() -> nn.Module:
    """Parameters of 6 + 1 + 4 elements, and one that is frozen: 11 is divisible by neither 2 nor 3."""
    made = nn.ParameterList([torch.zeros(2, 3), torch.zeros(1), torch.zeros(5), torch.zeros(4)])
    made[2].requires_grad_(False)
    return made


def noise(groups: int, updates: int, dtype: torch.dtype) -> list[dict[int, list[Tensor | None]]]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(2, 3), (1,), (4,)]
    return [
        {n: [torch.randn(s, generator=draw, dtype=dtype) for s in shapes] for n in range(updates)}
        for _ in range(groups)
    ]


def exchange(gradients: list[dict[int, list[Tensor | None]]], model: nn.Module) -> list[Member]:
    groups, updates = len(gradients), len(gradients[0])
    program = Program(Grid(groups, 1), gpipe(1, 1), updates, AllReduce(groups))
    members = [Member(groups, s, copy.deepcopy(model), gradients[s]) for s in range(groups)]
    simulate(program, {Unit(s, 0): member for s, member in enumerate(members)})
    return members


def mean_in_order(tensors: list[Tensor]) -> Tensor:
    total = torch.zeros_like(tensors[0])
    for tensor in tensors:
        total = total + tensor
    return total / len(tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 2, 3, 5])
def test_every_group_gets_the_mean_summed_in_the_order_of_the_groups(groups: int, dtype: torch.dtype) -> None:
    gradients = noise(groups, 3, dtype)
    members = exchange(gradients, module().to(dtype))
    for n in range(3):
        expected = [
            mean_in_order([g for g in parts if g is not None]) for parts in zip(*(g[n] for g in gradients), strict=True)
        ]
        for member in members:
            found = [g for g in member.means[n] if g is not None]
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_order_of_the_sum_can_be_told() -> None:
    # 1 + 1e8 - 1e8 is 0 in this order in float32, and 1 in another.
    values = [1.0, 1e8, -1e8]
    gradients: list[dict[int, list[Tensor | None]]] = [
        {0: [torch.full((2, 3), v), torch.full((1,), v), torch.full((4,), v)]} for v in values
    ]
    for member in exchange(gradients, module()):
        assert [g is not None and not g.any() for g in member.means[0]] == [True] * 3


def test_sums_stay_sums_over_all_groups_and_so_does_what_they_count() -> None:
    gradients = noise(3, 1, torch.float32)
    members = [Member(3, s, module(), gradients[s]) for s in range(3)]
    for s, member in enumerate(members):
        member.weights.count(torch.tensor([s + 0.5], dtype=torch.float64))
    simulate(Program(Grid(3, 1), gpipe(1, 1), 1, AllReduce(3)), {Unit(s, 0): m for s, m in enumerate(members)})
    for member in members:
        assert member.weights.divisor is not None
        assert member.weights.divisor.tolist() == [4.5]
        for found, parts in zip(member.means[0], zip(*(g[0] for g in gradients), strict=True), strict=True):
            assert found is not None
            total = torch.zeros_like(found)
            for part in parts:
                total = total + part
            assert torch.equal(found, total)


def test_each_group_sends_and_receives_the_least_that_is_possible() -> None:
    groups = 3
    members = exchange(noise(groups, 1, torch.float32), module())
    sizes = [5, 5, 4]  # the parts that the groups own of 11 elements and 3 words on who has a gradient
    for s, member in enumerate(members):
        sent = {(m.tag.edge.name, m.tag.edge.target.group): m.tensors[0].numel() for m in member.sent}
        others = [r for r in range(groups) if r != s]
        assert sent == {**{(PART, r): sizes[r] for r in others}, **{(MEAN, r): sizes[s] for r in others}}


def test_messages_carry_the_version_of_their_sender() -> None:
    members = exchange(noise(2, 3, torch.float32), module())
    assert [m.version for m in members[0].sent] == [0, 0, 1, 1, 2, 2]
    assert [m.tag.index for m in members[0].sent] == [0, 0, 1, 1, 2, 2]


def test_a_parameter_without_gradient_in_any_group_stays_without() -> None:
    one, other = noise(2, 1, torch.float32)
    one[0][1] = other[0][1] = None
    for member in exchange([one, other], module()):
        assert [g is None for g in member.means[0]] == [False, True, False]


def test_a_gradient_that_is_missing_in_one_group_counts_as_zero_in_all() -> None:
    one, other = noise(2, 1, torch.float32)
    alone = other[0][1]
    assert alone is not None
    one[0][1] = None
    for member in exchange([one, other], module()):
        mean = member.means[0][1]
        assert mean is not None
        assert torch.equal(mean, alone / 2)


def test_a_gradient_of_exactly_zero_is_one() -> None:
    one, other = noise(2, 1, torch.float32)
    one[0][1], other[0][1] = None, torch.zeros(1)
    for member in exchange([one, other], module()):
        mean = member.means[0][1]
        assert mean is not None
        assert torch.equal(mean, torch.zeros(1))


def test_frozen_parameters_get_no_gradient() -> None:
    for member in exchange(noise(2, 1, torch.float32), module()):
        frozen = [p for p in member.weights.module.parameters() if not p.requires_grad]
        assert [p.grad for p in frozen] == [None]


def test_messages_do_not_change_when_their_sender_goes_on() -> None:
    weights = Weights(module())
    unit, peer = Unit(0, 0), Unit(1, 0)
    averaging = GradientAveraging({0: 1.0, 1: 1.0}, 0, weights)
    for p in weights.trainable():
        p.grad = torch.ones_like(p)
    (share,) = averaging.step(Action(Kind.SHARE, 0, sends=(Tag(Edge(PART, unit, peer), 0),)), [])
    part = Message(Tag(Edge(PART, peer, unit), 0), 0, (torch.full((7,), 3.0),))
    (mean,) = averaging.step(Action(Kind.REDUCE, 0, sends=(Tag(Edge(MEAN, unit, peer), 0),)), [part])
    averaging.step(Action(Kind.MIX, 0), [Message(Tag(Edge(MEAN, peer, unit), 0), 0, (torch.full((7,), 4.0),))])
    for p in weights.trainable():
        p.grad = torch.zeros_like(p)
    weights.flat.fill_(7.0)
    assert torch.equal(share.tensors[0], torch.ones(7))
    assert torch.equal(mean.tensors[0], torch.full((7,), 2.0))
    assert torch.equal(part.tensors[0], torch.full((7,), 3.0))
