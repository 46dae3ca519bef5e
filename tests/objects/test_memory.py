"""What objects remember, given to others that were made as they were."""

import itertools
import json
import random
from collections import Counter, OrderedDict, defaultdict, deque
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Memory, joined, parted
from stalegrid.written import to_json


class Thing:
    """Keeps what it is told to."""

    def __init__(self, **kept: Any) -> None:
        vars(self).update(kept)


class Slotted:
    """Keeps what it has in slots."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


def through_a_file(state: Any) -> Any:
    plain, tensors = parted(state)
    return joined(json.loads(to_json(plain)), tensors)


def given(first: Any, other: Any) -> None:
    Memory(other).load_state_dict(through_a_file(Memory(first).state_dict()))


def test_what_is_kept_comes_back_as_it_was() -> None:
    first = Thing(
        plain=(1, "a", None, float("inf"), 2 + 3j, torch.Size([2])),
        queue=deque([1, 2], maxlen=2),
        sets={1, frozenset({2})},
        maps=OrderedDict(a=Counter("aab")),
        falling=defaultdict(list, {3: [4]}),
        array=np.arange(3.0),
        number=np.float32(0.5),
        tensor=torch.ones(2),
    )
    empty = {"queue": deque(), "falling": defaultdict(list), "array": np.zeros(3), "maps": OrderedDict()}
    other = Thing(**empty, plain=(), sets=set(), number=np.float32(0), tensor=None, gone=1)
    given(first, other)
    assert other.plain == first.plain
    assert other.queue == first.queue
    assert other.queue.maxlen == 2
    assert other.sets == first.sets
    assert other.maps == first.maps
    assert type(other.maps["a"]) is Counter
    assert other.falling == first.falling
    assert other.falling[5] == []
    assert np.array_equal(other.array, first.array)
    assert other.number.dtype == np.float32
    assert torch.equal(other.tensor, torch.ones(2))
    assert not hasattr(other, "gone")


def test_generators_go_on() -> None:
    def make() -> Thing:
        drawers = {"torch": torch.Generator().manual_seed(1), "numpy": np.random.default_rng(1)}
        return Thing(**drawers, old=np.random.RandomState(1), python=random.Random(1), count=itertools.count(3, 2))

    def draw(thing: Thing) -> list[float]:
        own = vars(thing)
        tensor = torch.rand((), generator=own["torch"])
        return [float(tensor), own["numpy"].random(), own["old"].rand(), own["python"].random(), next(own["count"])]

    first, other = make(), make()
    draw(first)
    given(first, other)
    assert draw(other) == draw(first)


def test_what_is_one_in_two_places_stays_one() -> None:
    def make() -> Thing:
        shared: list[int] = []

        def adds() -> int:
            shared.append(1)
            return len(shared)

        inner = Slotted()
        return Thing(shared=shared, adds=adds, again=partial(adds), inner=inner, same=[inner])

    first, other = make(), make()
    first.adds()  # type: ignore[attr-defined]
    first.inner.n = 5  # type: ignore[attr-defined]
    given(first, other)
    kept = vars(other)
    assert kept["again"]() == 2
    assert kept["shared"] == [1, 1]
    assert kept["same"][0] is kept["inner"]
    assert kept["inner"].n == 5


def test_what_was_parted_is_parted() -> None:
    shared: list[int] = [0]
    first, other = Thing(a=[1], b=[2]), Thing(a=shared, b=shared)
    given(first, other)
    assert vars(other) == {"a": [1], "b": [2]}


def test_modules_keep_attributes_modes_and_buffers() -> None:
    def make() -> nn.Module:
        made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        made[0].calls = 0  # type: ignore[assignment]
        return made

    first, other = make(), make()
    first[0].calls = 3  # type: ignore[index,assignment]
    first[1].eval()  # type: ignore[index,operator]
    first(torch.randn(3, 2))
    weight = other[0].weight  # type: ignore[index]
    given(first, other)
    assert other[0].calls == 3
    assert not other[1].training
    assert other[0].weight is weight
    assert torch.equal(weight, first[0].weight)


def test_views_of_what_is_given_stay_views() -> None:
    def make(value: float) -> tuple[Thing, torch.Tensor]:
        flat = torch.full((4,), value)
        return Thing(view=flat[1:3]), flat

    (first, flat), (other, own) = make(1.0), make(2.0)
    Memory(other, [own]).load_state_dict(through_a_file(Memory(first, [flat]).state_dict()))
    own.fill_(7)
    assert torch.equal(vars(other)["view"], torch.full((2,), 7.0))


def test_what_says_itself_what_it_remembers_is_asked() -> None:
    class Says:
        def __init__(self) -> None:
            self.n, self.lines = 0, iter([])

        def state_dict(self) -> dict[str, int]:
            return {"n": self.n}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.n = state["n"]

    first, other = Says(), Says()
    first.n = 4
    given(first, other)
    assert other.n == 4


@pytest.mark.parametrize("late", [Thing(), nn.Linear(1, 1), (x for x in "ab"), lambda: 1, b"a"])
def test_what_no_state_can_be_given_to_is_refused_by_name(late: Any) -> None:
    thing = Thing(part=None)
    memory = Memory({"callback": thing})
    memory.state_dict()
    vars(thing)["part"] = late
    with pytest.raises(ConfigError, match="part"):
        memory.state_dict()
