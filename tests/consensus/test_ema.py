"""How far a group usually goes while what others sent is under way."""

import math

import pytest
import torch
from torch import Tensor, nn

from stalegrid.consensus.delta import DeltaAveraging
from stalegrid.consensus.ema import EmaAveraging, beta_of
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import PARAMETERS, Averaging
from stalegrid.consensus.sent import Whole
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import Message
from stalegrid.stages.weights import Weights

torch.set_num_threads(1)


class Counted(nn.Module):
    """One parameter, and a counter among the running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.register_buffer("count", torch.zeros(1))


@pytest.mark.parametrize(
    ("update", "beta"), [(0, 0.5), (999, 0.5), (1000, 0.5), (1500, 0.745), (2000, 0.99), (1250, None)]
)
def test_the_estimate_stays_longer_and_longer(update: int, beta: float | None) -> None:
    expected = 0.5 + 0.49 * (1 - math.cos(math.pi / 4)) / 2 if beta is None else beta
    assert beta_of(update, 2000) == pytest.approx(expected)


def test_a_run_that_is_short_has_no_rise() -> None:
    assert {beta_of(n, planned) for planned in (1, 500, 1000) for n in range(planned)} == {0.5}


RATES = [1.0, 3.0, 2.0, -1.0, 0.5, 4.0]
"""How far a group goes by itself, by update."""


def walked(exchange: EmaAveraging | DeltaAveraging, weights: Weights, theirs: list[float]) -> list[list[float]]:
    """Return the vector after each round: another group's is given, and mixed with a lag of one."""
    found = []
    for n, rate in enumerate(RATES):
        exchange.step(Action(Kind.SHARE, n), [])
        weights.flat[0] += rate
        weights.flat[weights.trained] += 1
        weights.version += 1
        if n >= 1:
            tag = Tag(Edge(PARAMETERS, Unit(1, 0), Unit(0, 0)), n - 1)
            sent = torch.zeros(weights.mixed)
            sent[0], sent[weights.trained] = theirs[n - 1], n - 1
            exchange.step(Action(Kind.MIX, n, (tag,)), [Message(tag, n - 1, (sent,))])
        found.append([float(weights.flat[0]), float(weights.flat[weights.trained])])
    return found


def made(kind: str, begun: int = 2) -> tuple[EmaAveraging | DeltaAveraging, Weights]:
    weights = Weights(Counted())
    rounds = Averaging(mixing_matrix("complete", 2), False, 1, 1, len(RATES))
    if kind == "delta":
        return DeltaAveraging(rounds, weights), weights
    sent = Whole(weights.trained, weights.mixed)
    return EmaAveraging(rounds, weights, Tensor.mul_, sent, begun, lambda update: 0.25), weights


THEIRS = [4.0, -2.0, 6.0, 1.0, 0.0]


def test_the_formula_by_hand() -> None:
    """``b <- beta b + (1 - beta) (w - snap)``, ``w <- mean + b``; the first b is the difference."""
    exchange, weights = made("ema")
    w, b, snaps, expected = 0.0, 0.0, [], []
    for n, rate in enumerate(RATES):
        snaps.append(w)
        w += rate
        if n >= 1:
            gone = w - snaps[n - 1]
            b = gone if n == 1 else 0.25 * b + 0.75 * gone
            w = (snaps[n - 1] + THEIRS[n - 1]) / 2 + b
        expected.append(w)
    found = walked(exchange, weights, THEIRS)
    assert [w for w, _ in found] == pytest.approx(expected, rel=1e-6)


def test_what_is_mixed_for_the_first_time_is_mixed_by_the_rule_delta_to_the_bit() -> None:
    (ema, one), (delta, other) = made("ema", begun=100), made("delta")
    assert walked(ema, one, THEIRS) == walked(delta, other, THEIRS)


def test_a_counter_goes_on_and_is_not_estimated() -> None:
    exchange, weights = made("ema")
    assert [count for _, count in walked(exchange, weights, THEIRS)] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_snapshots_and_the_estimate_are_counted_and_kept() -> None:
    exchange, weights = made("ema")
    walked(exchange, weights, THEIRS)
    assert exchange.nbytes == 4 * weights.mixed, "the estimate: nothing is under way at the end"
    exchange.step(Action(Kind.SHARE, 3), [])
    assert exchange.nbytes == 4 * 2 * weights.mixed, "the snapshot that is under way, and the estimate"
    again, _ = made("ema")
    again.load_state_dict(exchange.state_dict())
    assert again.nbytes == exchange.nbytes
