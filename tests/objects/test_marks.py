"""Marks show what was replaced, and tell it from what was added."""

from collections import deque
from typing import Any

import pytest
import torch

from stalegrid.objects import replaced
from stalegrid.objects.marks import mark


class Kept:
    """Has attributes."""

    def __init__(self, **kept: Any) -> None:
        vars(self).update(kept)


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
