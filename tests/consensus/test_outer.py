"""What an outer optimizer does to one unit's vector."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.consensus.choose import choose_mixing, find_mixing, turns_of
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.mixing import Exchange, Mixing, Turns
from stalegrid.consensus.noloco import NoLoCo
from stalegrid.consensus.outer import Outer, OuterStep
from stalegrid.consensus.settings import MixingSettings
from stalegrid.errors import ConfigError
from stalegrid.objects import tensors_in
from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import Message
from stalegrid.stages.weights import Weights

torch.set_num_threads(1)


class One(nn.Module):
    """A parameter of a few numbers, and a statistic."""

    def __init__(self, *numbers: float, statistic: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(numbers, dtype=torch.float64))
        self.register_buffer("statistic", torch.tensor([statistic], dtype=torch.float64))


class Groups:
    """Groups of one unit that exchange in turns, with whatever is trained between them."""

    def __init__(self, mixing: Mixing, starts: list[One], topology: str = "complete", **turns: Any) -> None:
        self.turns = Turns(mixing_matrix(topology, len(starts)), **{"period": 1, "lag": 0, "updates": 100, **turns})
        self.rounds = mixing.lateral(self.turns)
        self.weights = [Weights(start) for start in starts]
        self.exchanges: list[Exchange] = []
        for s, weights in enumerate(self.weights):
            made = mixing.exchange(self.turns, Unit(s, 0), weights, None)
            assert made is not None
            self.exchanges.append(made)
        self.under_way: dict[Any, Message] = {}

    def update(self, n: int, *moved: list[float]) -> list[Tensor]:
        """Let every group move by some numbers, then exchange; return what each has."""
        for weights, by in zip(self.weights, moved, strict=True):
            weights.flat[: len(by)] += torch.tensor(by, dtype=torch.float64)
            weights.version = n + 1
        actions = [list(self.rounds.after_update(Unit(s, 0), n)) for s in range(len(self.weights))]
        for kind in (Kind.SHARE, Kind.REDUCE, Kind.MIX):
            for exchange, own in zip(self.exchanges, actions, strict=True):
                for action in own:
                    if action.kind is kind:
                        made = exchange.step(action, [self.under_way.pop(tag) for tag in action.needs])
                        self.under_way |= {message.tag: message for message in made}
        return [weights.flat[: weights.trained].clone() for weights in self.weights]


def test_the_step_is_nesterovs_over_the_mean() -> None:
    groups = Groups(Outer(rate=0.5, momentum=0.5), [One(1.0), One(1.0)])
    # delta = 1 - mean(2, 4) = -2, v = -2, outer = 1 + 0.5 (2 + 0.5 2)
    assert [float(w[0]) for w in groups.update(0, [1.0], [3.0])] == [2.5, 2.5]
    # delta = 2.5 - mean(3.5, 2.5) = -0.5, v = -1 - 0.5, outer = 2.5 + 0.5 (0.5 + 0.5 1.5)
    assert [float(w[0]) for w in groups.update(1, [1.0], [0.0])] == [3.125, 3.125]


def test_a_group_alone_makes_outer_steps_too() -> None:
    groups = Groups(Outer(rate=0.5, momentum=0.5), [One(1.0)])
    assert float(groups.update(0, [2.0])[0][0]) == 2.5


def test_between_turns_groups_go_their_own_way() -> None:
    groups = Groups(Outer(rate=1.0, momentum=0.0), [One(0.0), One(0.0)], period=2)
    assert [float(w[0]) for w in groups.update(0, [1.0], [3.0])] == [1.0, 3.0]
    assert [float(w[0]) for w in groups.update(1, [1.0], [3.0])] == [4.0, 4.0]


@pytest.mark.parametrize(
    ("keep", "after"), [(0.0, [2.0, 2.0]), (0.25, [2.0 + 3.0 / 4, 2.0 + 1.0 / 4]), (1.0, [5.0, 3.0])]
)
def test_with_a_lag_a_share_of_what_was_trained_since_is_kept(keep: float, after: list[float]) -> None:
    groups = Groups(Outer(1.0, 0.0, keep), [One(0.0), One(0.0)], period=3, lag=1)
    groups.update(0, [0.5], [0.5])
    groups.update(1, [0.5], [2.5])  # shared as 1 and 3, whose mean is 2
    assert [float(w[0]) for w in groups.update(2, [4.0], [0.0])] == after


def test_where_all_are_joined_all_have_the_same_bits() -> None:
    # 1 - 1/3 - 1/3 is another number than 1/3: each group's own share, were it taken from the matrix.
    assert len(set(mixing_matrix("complete", 3).weights(0)[0])) > 1
    draw = torch.Generator().manual_seed(0)
    groups = Groups(Outer(), [One(*[0.1] * 64) for _ in range(3)])
    for n in range(3):
        first, *others = groups.update(n, *torch.rand(3, 64, generator=draw, dtype=torch.float64).tolist())
        assert all(torch.equal(first, other) for other in others)


def test_with_rate_1_and_no_momentum_it_is_the_mean_to_rounding() -> None:
    draw = torch.Generator().manual_seed(0)
    moved = torch.rand(3, 64, generator=draw, dtype=torch.float64)
    groups = Groups(Outer(1.0, 0.0, 0.0), [One(*[0.1] * 64) for _ in range(3)])
    # saved - (saved - mean), which rounds twice where the mean does once
    torch.testing.assert_close(groups.update(0, *moved.tolist())[0], 0.1 + moved.mean(0), rtol=0, atol=1e-15)


def test_a_row_that_is_no_plain_mean_is_taken_as_it_is() -> None:
    groups = Groups(Outer(1.0, 0.0), [One(0.0) for _ in range(3)], "0-1,1-2")
    # The ends take a third of the middle, which takes a third of each.
    assert [float(w[0]) for w in groups.update(0, [3.0], [6.0], [9.0])] == pytest.approx([4.0, 6.0, 8.0], abs=1e-15)


def test_running_statistics_are_averaged_without_an_outer_step() -> None:
    groups = Groups(Outer(0.5, 0.5), [One(0.0, statistic=1.0), One(0.0, statistic=4.0), One(0.0, statistic=math.inf)])
    groups.update(0, [0.0], [0.0], [0.0])
    found = [float(weights.flat[weights.trained]) for weights in groups.weights]
    assert found == [2.0, 3.0, math.inf]  # a third of the gap to whoever is finite; an infinity stays


def test_what_is_told_is_the_angle_between_pseudo_gradients() -> None:
    groups = Groups(Outer(1.0, 0.5), [One(0.0, 0.0)])
    (exchange,) = groups.exchanges
    assert isinstance(exchange, OuterStep)
    groups.update(0, [1.0, 0.0])
    assert all(map(math.isnan, exchange.told()))
    groups.update(1, [1.0, 1.0])
    groups.update(2, [-1.0, -1.0])
    rho = (math.sqrt(0.5) - 1) / 2  # the mean of the two cosines
    assert exchange.told() == pytest.approx((rho, 1 + 0.5 / (1 - 0.5 * rho)))
    assert all(map(math.isnan, exchange.told()))


@pytest.mark.parametrize("mixing", [Outer(), NoLoCo()])
def test_what_is_kept_is_as_many_vectors_as_it_says(mixing: Mixing) -> None:
    groups = Groups(mixing, [One(*[0.0] * 16), One(*[0.0] * 16)])
    groups.update(0, [1.0], [2.0])
    exchange: Any = groups.exchanges[0]
    kept = {x.data_ptr(): x.nbytes for x in tensors_in(exchange.state_dict()) if x.dim()}
    assert sum(kept.values()) == mixing.keeps * 16 * 8


@pytest.mark.parametrize("mixing", [Outer(0.5, 0.5, 0.5), NoLoCo(0.5, 0.5)])
@pytest.mark.parametrize("stop", range(1, 6))
def test_it_goes_on_from_its_state_at_any_update(mixing: Mixing, stop: int) -> None:
    turns = {"period": 3, "lag": 1 if isinstance(mixing, Outer) else 0}
    moves = torch.rand(6, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).tolist()
    whole, first, rest = (Groups(mixing, [One(0.0, 1.0), One(0.0, 1.0)], **turns) for _ in range(3))
    for n in range(stop):
        first.update(n, *moves[n])
    rest.under_way = first.under_way
    for one, other in zip(first.exchanges, rest.exchanges, strict=True):
        other.load_state_dict(one.state_dict())  # type: ignore[attr-defined]
    for one, other in zip(first.weights, rest.weights, strict=True):
        other.load_state_dict(one.state_dict())
    for n in range(6):
        expected = whole.update(n, *moves[n])
        if n >= stop:
            assert all(map(torch.equal, rest.update(n, *moves[n]), expected))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("outer,rate=0", r"rate .* above 0 \(mixing: outer,rate=0.0\)"),
        ("outer,rate=-1", r"rate .* above 0 \(mixing: outer,rate=-1.0\)"),
        ("outer,momentum=1", r"momentum .* from 0 to below 1 \(mixing: outer,momentum=1.0\)"),
        ("outer,momentum=-0.1", r"momentum .* from 0 to below 1"),
        ("outer,keep=1.1", r"from 0 to 1 \(mixing: outer,keep=1.1\)"),
        ("outer,keep=-0.1", r"from 0 to 1 \(mixing: outer,keep=-0.1\)"),
        ("outer,alpha=1", r"unknown number of outer"),
        ("noloco,rate=0", r"rate .* above 0 \(mixing: noloco,rate=0.0\)"),
        ("noloco,momentum=1", r"momentum .* below 1 \(mixing: noloco,momentum=1.0\)"),
    ],
)
def test_numbers_out_of_range_are_refused(kind: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find_mixing(kind)


def test_what_was_shared_comes_before_it_is_shared_again() -> None:
    with pytest.raises(ConfigError, match=r"before they share again \(period: 2, lag: 2\); take a longer period"):
        Outer().lateral(Turns(mixing_matrix("ring", 2), period=2, lag=2, updates=9))
    with pytest.raises(ConfigError, match=r"noloco .* has no lag \(lag: 1\); take 0, or mixing outer"):
        NoLoCo().lateral(Turns(mixing_matrix("ring", 2), period=2, lag=1, updates=9))


@pytest.mark.parametrize("kind", ["outer", "noloco"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_momentum_of_optimizers_is_not_mixed_too(kind: str, groups: int) -> None:
    with pytest.raises(ConfigError, match=rf"{kind} has a momentum of its own, .* \(mixing.momentum: true\)"):
        choose_mixing(MixingSettings(kind=kind, momentum=True), "none", "dsp", groups)


def test_each_has_a_topology_of_its_own_unless_the_user_names_one() -> None:
    def neighbours(mixing: str, **asked: Any) -> tuple[int, ...]:
        return turns_of(MixingSettings(**asked), 5, 9, mixing=find_mixing(mixing)).matrix.neighbours(0)

    assert neighbours("adapt-then-combine") == (1, 4)
    assert neighbours("outer") == neighbours("noloco") == (1, 2, 3, 4)
    assert neighbours("outer", topology="ring") == (1, 4)


def test_a_single_group_has_a_mixing_where_that_is_one_for_it() -> None:
    assert choose_mixing(MixingSettings(kind="outer,rate=0.5"), "none", "dsp", 1) == Outer(rate=0.5)
    assert choose_mixing(MixingSettings(kind="adapt-then-combine"), "none", "dsp", 1).name == "none"


@pytest.mark.parametrize("groups", [2, 3])
def test_a_state_has_the_names_that_checkpoints_have(groups: int) -> None:
    exchange: Any = Groups(Outer(), [One(0.0) for _ in range(groups)]).exchanges[0]
    state = exchange.state_dict()
    assert set(state) == {"saved", "velocity", "snapshots", "correlation"}
    exchange.load_state_dict(state | {"snapshots": {"under_way": {}}})  # where whole vectors travelled
