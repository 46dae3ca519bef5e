import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.seeds import derive, drawing, generator, kept, key

CPU = torch.device("cpu")
KEYS = st.tuples(st.integers(-5, 5), st.sampled_from(["model", "forward", "order"]), st.lists(st.integers(-2, 12)))


def test_derived_seeds_stay_what_they_are() -> None:
    # Changing these changes every published result.
    assert derive(0, "model") == 1977141789342320418
    assert derive(3, "forward", 1, 2, 34) == 6082360123987829467


@settings(deadline=None)
@given(one=KEYS, other=KEYS)
def test_another_key_is_another_seed(one: tuple[int, str, list[int]], other: tuple[int, str, list[int]]) -> None:
    (seed, purpose, index), (seed2, purpose2, index2) = one, other
    assert (derive(seed, purpose, *index) == derive(seed2, purpose2, *index2)) == (one == other)


def test_indices_do_not_run_together() -> None:
    assert len({derive(1, "x", 1, 23), derive(1, "x", 12, 3), derive(1, "x", 123), derive(11, "x", 23)}) == 4


@settings(deadline=None)
@given(seed=st.integers(), index=st.integers())
def test_seeds_fit_any_generator(seed: int, index: int) -> None:
    assert 0 <= derive(seed, "x", index) < 2**63


def test_a_generator_depends_on_its_key_alone() -> None:
    def draw(*index: int) -> torch.Tensor:
        return torch.rand(4, generator=generator(7, "order", *index))

    first = draw(0, 1)
    torch.rand(3)
    assert torch.equal(draw(0, 1), first)
    assert not torch.equal(draw(1, 0), first)


def test_drawing_depends_on_its_key_alone() -> None:
    def draw(seed: int, *index: int) -> torch.Tensor:
        with drawing(CPU, seed, "forward", *index):
            return torch.nn.functional.dropout(torch.ones(64), 0.5)

    first = draw(0, 1, 2)
    torch.rand(3)
    assert torch.equal(draw(0, 1, 2), first)
    assert not torch.equal(draw(0, 2, 1), first)
    assert not torch.equal(draw(1, 1, 2), first)


def test_drawing_is_the_generator_of_the_same_key() -> None:
    with drawing(CPU, 2, "forward", 5):
        drawn = torch.rand(8)
    assert torch.equal(drawn, torch.rand(8, generator=generator(2, "forward", 5)))


def draw_all() -> list[float]:
    """Draw from each global generator, from two as a pair of which one number is kept for the next call."""
    return [*torch.rand(2).tolist(), np.random.rand(), np.random.randn(), random.random(), random.gauss(0, 1)]


def test_drawing_sets_every_global_generator() -> None:
    def draw(*index: int) -> list[float]:
        with drawing(CPU, 4, "update", *index):
            return draw_all()

    first = draw(1)
    draw_all()
    assert draw(1) == first
    assert not set(draw(2)) & set(first)


def test_generators_of_one_kind_do_not_draw_the_same_numbers() -> None:
    with drawing(CPU, 0, "forward"):
        words = torch.randint(2**32, (8,)).tolist()
        assert not set(words) & set(np.random.randint(0, 2**32, 8, dtype=np.uint32).tolist())


def test_drawing_leaves_every_global_generator_as_it_was() -> None:
    def after(*, within: bool) -> list[float]:
        key(CPU, 1, "test")
        draw_all()
        if within:
            with drawing(CPU, 0, "update"):
                draw_all()
        return draw_all()

    with kept(CPU):
        assert after(within=True) == after(within=False)


def test_drawing_leaves_the_global_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    with drawing(CPU, 0, "forward"):
        torch.rand(5)
        with drawing(CPU, 0, "inner"):
            torch.rand(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_drawing_within_drawing_goes_on_where_it_was() -> None:
    with drawing(CPU, 0, "forward"):
        torch.rand(1)
        with drawing(CPU, 0, "inner"):
            torch.rand(9)
        second = torch.rand(1)
    with drawing(CPU, 0, "forward"):
        assert torch.equal(torch.rand(2)[1:], second)


def test_drawing_puts_the_generator_back_after_an_error() -> None:
    before = torch.get_rng_state()

    def fail() -> None:
        with drawing(CPU, 0, "forward"):
            torch.rand(5)
            raise RuntimeError("in the model")

    with pytest.raises(RuntimeError, match="in the model"):
        fail()
    assert torch.equal(torch.get_rng_state(), before)
