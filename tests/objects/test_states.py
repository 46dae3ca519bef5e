"""A tree of values comes back from JSON and tensors as it was, to the bit."""

import json
import math
from collections import Counter, OrderedDict, deque
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stalegrid.errors import DataError
from stalegrid.objects.states import joined, parted
from stalegrid.written import to_json

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.text())
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.lists(inner).map(deque),
        st.dictionaries(KEYS, inner),
        st.dictionaries(KEYS, inner).map(OrderedDict),
        st.dictionaries(KEYS, st.integers()).map(Counter),
        st.sets(KEYS),
        st.frozensets(KEYS),
    ),
)


def there_and_back(tree: Any) -> Any:
    plain, tensors = parted(tree)
    return joined(json.loads(to_json(plain)), tensors)


def same(one: Any, other: Any) -> bool:
    """Compare values and types, also of what is within: 1 is not 1.0, and not True."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return list(map(repr, one)) == list(map(repr, other)) and all(map(same, one.values(), other.values()))
    if isinstance(one, list | tuple | deque):
        return all(map(same, one, other))
    return isinstance(one, set | frozenset) or repr(one) == repr(other)


@given(TREES)
def test_plain_values_come_back_as_they_were(tree: Any) -> None:
    assert same(there_and_back(tree), tree)


def test_numbers_that_are_none_come_back_too() -> None:
    assert there_and_back([math.inf, -math.inf]) == [math.inf, -math.inf]
    assert math.isnan(there_and_back({"x": math.nan})["x"])


@pytest.mark.parametrize(
    "kind", [torch.float32, torch.float64, torch.bfloat16, torch.half, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_come_back_with_type_bits_and_memory_order(kind: torch.dtype) -> None:
    images = torch.arange(48).reshape(2, 2, 3, 4).to(kind)
    for tensor in (images, images.to(memory_format=torch.channels_last), images[:, :, 1:, ::2], images[0, 0, 0, 0]):
        back = there_and_back({"a": [tensor]})["a"][0]
        assert torch.equal(back, tensor)
        assert back.dtype == kind
        assert back.stride() == torch.empty_like(tensor).stride()


def test_what_is_written_does_not_change_with_what_it_was_made_of() -> None:
    tensor = torch.ones(3)
    _, copies = parted({"a": tensor})
    tensor.zero_()
    (kept,) = copies.values()
    assert torch.equal(kept, torch.ones(3))


def test_a_tensor_that_is_there_twice_is_kept_once_and_one_again() -> None:
    tensor = torch.ones(3)
    plain, tensors = parted([tensor, {"b": tensor}])
    assert len(tensors) == 1
    first, second = joined(plain, tensors)
    assert first is second["b"]


def placed(tree: Any, made_on: str | None, read_on: str) -> list[str]:
    """Return where tensors are that are read for another device; it only stands for one."""
    plain, tensors = parted(tree, None if made_on is None else torch.device(made_on))
    return [tensor.device.type for tensor in joined(plain, tensors, torch.device(read_on))]


@pytest.mark.parametrize("made_on", [None, "cpu"])
def test_what_a_process_without_a_gpu_has_goes_to_that_of_another_but_for_single_numbers(made_on: str | None) -> None:
    assert placed([torch.ones(3), torch.tensor(1.0)], made_on, "meta") == ["meta", "cpu"]
    assert placed([torch.ones(3), torch.tensor(1.0)], made_on, "cpu") == ["cpu", "cpu"]


def test_what_a_process_with_a_gpu_has_on_the_cpu_stays_there() -> None:
    assert placed([torch.ones(3), torch.tensor(1.0)], "cuda", "meta") == ["cpu", "cpu"]


class Own:
    pass


@pytest.mark.parametrize("value", [Own(), [torch.ones(2).to_sparse()], {"a": range(3)}, 1j])
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be saved|not dense"):
        parted(value)


@pytest.mark.parametrize(
    "plain", [{"tensor": "gone", "strides": [1]}, {"float": "much"}, {"heap": []}, {"dict": [[1]]}]
)
def test_what_is_no_state_is_said(plain: Any) -> None:
    with pytest.raises(DataError, match="this is no saved state"):
        joined(plain, {})
