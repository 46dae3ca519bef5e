"""Marks show what was replaced, and tell it from what was added."""

import itertools
import math
import random
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from stalegrid.objects import replaced
from stalegrid.objects.marks import mark


class Kept:
    """Has attributes."""

    def __init__(self, **kept: Any) -> None:
        vars(self).update(kept)


class Slotted:
    """Has its attribute in a slot."""

    __slots__ = ("a",)

    def __init__(self, a: int) -> None:
        self.a = a


@pytest.mark.parametrize(
    "value",
    [1, math.nan, np.float64(math.nan), [math.nan], {"a": Kept(b=math.nan)}, np.arange(3), random.SystemRandom()],
)
def test_what_stays_is_what_it_was(value: Any) -> None:
    assert mark(value) == mark(value)
    assert not replaced(mark(value), mark(value))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, 3),
        (None, [1]),
        ([1], [1, 2]),
        ({}, {"a": 1}),
        ({"a": [1]}, {"b": 2, "a": [1, 3]}),
        ({1}, {1, 2}),
        (Kept(), Kept(a=1)),
        (Kept(a=None), Kept(a=Kept())),
    ],
)
def test_what_is_added_replaces_nothing(before: Any, after: Any) -> None:
    assert not replaced(mark(before), mark(after))
    assert not replaced(mark(before), mark(before))
    assert mark(before) != mark(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 2),
        (False, True),
        (0, None),
        ([1], [2, 1]),
        ([1, 2], [1]),
        ([], ()),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": {"b": 1}}, {"a": {"b": 2}}),
        ({1}, {2, 3}),
        (deque([1, 2], 2), deque([2, 3], 2)),
        (Kept(a=1), Kept(a=2)),
        (Slotted(1), Slotted(2)),
        (np.float32(1), np.float32(2)),
        (np.random.default_rng(1), np.random.default_rng(2)),
        (random.Random(1), random.Random(2)),
        (itertools.count(1), itertools.count(2)),
        (Kept(a=1), Kept()),
    ],
)
def test_what_is_changed_or_taken_away_is_replaced(before: Any, after: Any) -> None:
    assert replaced(mark(before), mark(after))


def test_a_tensor_is_replaced_where_it_is_changed_in_place() -> None:
    tensor = torch.zeros(2)
    before = mark({"a": tensor})
    assert not replaced(before, mark({"a": tensor}))
    tensor += 1
    assert replaced(before, mark({"a": tensor}))
