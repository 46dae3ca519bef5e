"""What of a vector travels: the whole, or random parts that come round."""

import math

import pytest
import torch
from torch import nn

from stalegrid.consensus.sent import Parts, Whole, drawn_bytes, draws_of, length, parts_of
from stalegrid.stages.weights import StageLayout, Weights


class Uneven(nn.Module):
    """Tensors that do not come out even, one of one element, and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(7, 3))
        self.b = nn.Parameter(torch.zeros(1))
        self.c = nn.Parameter(torch.zeros(40))
        self.norm = nn.BatchNorm1d(5, affine=False)


def parts(number: int, seed: int = 3, stage: int = 0, first: int = 0, late: int = 0) -> tuple[Weights, Parts]:
    weights = Weights(Uneven())
    return weights, Parts(weights, number, first, late, draws_of(seed, stage))


def taken(weights: Weights, sent: Parts, turn: int) -> torch.Tensor:
    """Return which elements of the parameters are in a turn's part, as 1."""
    return sent.spread(sent.take(torch.ones(weights.mixed), turn), turn)[: weights.trained]


def inside(weights: Weights) -> torch.Tensor:
    found = torch.zeros(weights.mixed)
    for entry in weights.entries:
        entry.view(found).fill_(1.0)
    return found[: weights.trained]


@pytest.mark.parametrize("number", [2, 3, 20, 100])
def test_a_cycle_has_every_element_once_and_no_padding(number: int) -> None:
    weights, sent = parts(number)
    for cycle in range(2):
        every = [taken(weights, sent, cycle * number + part) for part in range(number)]
        assert torch.equal(torch.stack(every).sum(0), inside(weights))


def test_cycles_begin_with_the_first_turn_and_are_drawn_anew() -> None:
    weights, sent = parts(4, first=6)
    first, second = ([taken(weights, sent, turn + 6 + i) for i in range(4)] for turn in (0, 4))
    assert torch.equal(torch.stack(first).sum(0), inside(weights))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_parts_are_keyed_by_seed_stage_and_cycle_and_by_nothing_else() -> None:
    weights, sent = parts(3)
    later = parts(3, late=2)[1]
    later.take(torch.ones(weights.mixed), 7)
    assert torch.equal(taken(weights, sent, 4), taken(weights, later, 4))
    for other in (parts(3, seed=4)[1], parts(3, stage=1)[1]):
        assert not torch.equal(taken(weights, sent, 4), taken(weights, other, 4))


def test_an_element_of_a_small_tensor_is_not_bound_to_a_turn_of_the_cycle() -> None:
    weights, sent = parts(4)
    place = weights.entries[1].offset
    turns = {turn % 4 for turn in range(80) if taken(weights, sent, turn)[place]}
    assert turns == {0, 1, 2, 3}


def test_a_piece_is_as_long_as_the_layout_says_and_ends_with_the_statistics() -> None:
    weights, sent = parts(4)
    vector = torch.arange(float(weights.mixed))
    for turn in range(4):
        piece = sent.take(vector, turn)
        assert len(piece) == length(weights, 4) == length(StageLayout.of(weights), 4)
        assert len(piece) == math.ceil(21 / 4) + 1 + 10 + weights.mixed - weights.trained
        assert torch.equal(piece[sent.statistics], vector[weights.trained :])


def test_what_is_put_back_is_what_was_taken_and_the_rest_stays() -> None:
    weights, sent = parts(3)
    vector = torch.randn(weights.mixed)
    into = torch.full((weights.mixed,), 9.0)
    sent.put(into, sent.take(vector, 1), 1)
    here = torch.cat([taken(weights, sent, 1), torch.ones(weights.mixed - weights.trained)]).bool()
    assert torch.equal(into, torch.where(here, vector, 9.0))


@pytest.mark.parametrize(("number", "late"), [(4, 0), (4, 3), (4, 4), (4, 9)])
def test_no_more_cycles_are_kept_than_late_turns_need(number: int, late: int) -> None:
    weights, sent = parts(number, late=late)
    vector, most = torch.ones(weights.mixed), 0
    for turn in range(30):
        sent.take(vector, turn + late)
        sent.take(vector, turn)
        most = max(most, sent.nbytes)
    assert most == drawn_bytes(weights, number, late)


def test_what_is_drawn_is_drawn_again() -> None:
    weights, sent = parts(3, late=2)
    sent.take(torch.ones(weights.mixed), 8)
    again = parts(3, late=2)[1]
    again.load_state_dict(sent.state_dict())
    assert again.nbytes == sent.nbytes > 0
    assert torch.equal(taken(weights, again, 7), taken(weights, sent, 7))


def test_the_whole_is_the_vector_itself() -> None:
    vector = torch.randn(6)
    sent = Whole(4, 6)
    assert sent.take(vector, 3) is vector
    assert sent.spread(vector, 3) is vector
    assert sent.nbytes == 0
    into = torch.zeros(6)
    sent.put(into, vector, 0)
    assert torch.equal(into, vector)


def test_shares_make_whole_numbers_of_parts() -> None:
    assert [parts_of(p) for p in (1.0, 0.7, 0.5, 0.4, 0.3, 0.05)] == [1, 2, 2, 3, 4, 20]
    assert [parts_of(1 / n) for n in range(1, 500)] == list(range(1, 500))
