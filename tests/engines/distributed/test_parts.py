"""What is read later is read when somebody asks, and is one with the rest where it was one before."""

import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from stalegrid.data import Later, Reading
from stalegrid.engines.distributed import parts

READ: list[str] = []
"""Names of what was read."""


class Named(Dataset[Any]):
    def __init__(self, name: str, **content: Any) -> None:
        self.name = name
        vars(self).update(content)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        READ.append(self.name)


class Whole:
    """A value of several places, some of which are read later."""

    def __init__(self, **content: Any) -> None:
        vars(self).update(content)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@pytest.fixture(autouse=True)
def nothing_read() -> Iterator[None]:
    READ.clear()
    yield
    READ.clear()


def opened_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def read(value: Any) -> Any:
    """Write a value behind something else, and read it."""
    with tempfile.TemporaryFile() as file:
        file.write(b"before")
        parts.write(value, file)
        file.flush()
        number = os.dup(file.fileno())
        with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as content:
            content.seek(6)
            return parts.read(content, number)


def test_each_part_is_read_when_it_is_asked_for_in_any_order() -> None:
    a, b = Later.of(Named("a", number=1)), Later.of(Named("b", number=2))
    found = read({"a": a, "b": b, "again": a, "rest": 3})
    assert (READ, found["rest"]) == ([], 3)
    assert found["a"] is found["again"]
    assert found["b"].get().number == 2  # type: ignore[attr-defined]
    assert READ == ["b"]
    assert found["a"].get() is found["a"].get()
    assert READ == ["b", "a"]
    found["a"].let_go()
    assert found["a"].get().number == 1
    assert READ == ["b", "a", "a"]


def test_a_value_without_parts_is_read_and_its_file_closed() -> None:
    before = opened_files()
    assert read([1, "two"]) == [1, "two"]
    assert opened_files() == before


def test_the_file_is_open_as_long_as_there_may_be_somebody_who_asks() -> None:
    before = opened_files()
    found = read([Later.of(Named("a"))])
    assert opened_files() == before + 1
    assert found[0].get().name == "a"
    del found
    assert opened_files() == before


def test_what_the_value_and_parts_share_is_one() -> None:
    table, text, memory, numbers = {"x": [1]}, b"y" * 100, torch.zeros(50), np.zeros(100_000)
    value = Whole(table=table, text=text, memory=memory[:10], numbers=numbers)
    a = Named("a", inner=table["x"], text=text, memory=memory[5:], numbers=numbers)
    b = Named("b", table=table, memory=memory)
    value.a, value.b = Later.of(a), Later.of(b)
    found = read(value)
    a, b = found.a.get(), found.b.get()
    assert a.inner is found.table["x"] is b.table["x"]
    assert a.text is found.text
    assert a.numbers is found.numbers
    a.memory[0] = 7
    assert found.memory[5] == b.memory[5] == 7


@pytest.mark.parametrize("first", ["a", "b"])
def test_what_parts_share_with_each_other_is_one_and_opens_neither(first: str) -> None:
    memory, inner = torch.arange(40.0), [1, 2]
    outer = (inner, "and")
    base = Named("base")
    a = Named("a", memory=memory[:20], outer=outer, base=base)
    b = Named("b", memory=memory[10:], inner=inner, base=base)
    found = read(Whole(a=Later.of(a), b=Later.of(b)))
    getattr(found, first).get()
    assert ["base", first] == READ
    a, b = found.a.get(), found.b.get()
    assert len(READ) == 3
    assert a.outer[0] is b.inner
    assert a.base is b.base
    b.memory[0] = -1
    assert a.memory[10] == -1


def test_memory_is_written_once(tmp_path: Any) -> None:
    memory = torch.randn(1000, 100)
    a, b = Named("a", rows=list(memory)), Named("b", rows=list(memory[10:]))
    with open(tmp_path / "file", "w+b") as file:
        parts.write([Later.of(a), Later.of(b)], file)
        assert file.tell() < 2 * memory.nbytes


def script() -> Any:
    """Return functions and a class that are written by value, and share their globals."""
    code = """
count = []

class Own(Base):
    def counted(self):
        return count

def counted():
    return count
"""
    module: dict[str, Any] = {"Base": Named, "__name__": "__main__"}
    exec(code, module)
    return module


def test_functions_and_classes_of_a_script_have_their_globals_in_common() -> None:
    module = script()
    a, b = module["Own"]("a"), module["Own"]("b", function=module["counted"])
    found = read(Whole(function=module["counted"], a=Later.of(a), b=Later.of(b)))
    b = found.b.get()
    assert READ == ["b"]
    a = found.a.get()
    assert type(a) is type(b)
    assert a.counted() is b.counted() is found.function() is b.function()
    found.function().append(1)
    assert a.counted() == [1]


@pytest.mark.parametrize("held", [lambda data: data, lambda data: data.dataset])
def test_what_the_value_holds_too_is_there_at_once(held: Any) -> None:
    data = Reading(Named("a", number=[3]))
    found = read(Whole(later=Later.of(data), held=held(data)))
    assert READ == ["a"]
    assert found.held is held(found.later.there)


def test_a_part_that_holds_the_value_holds_that_one() -> None:
    value = Whole(number=5)
    value.later = Later.of(Named("a", value=value))
    found = read(value)
    assert found.later.get().value is found


def test_a_tensor_with_more_in_it_is_looked_into() -> None:
    mark = ["mark"]
    one, other, parameter = torch.zeros(2), torch.zeros(2), torch.nn.Parameter(torch.zeros(2))
    one.mark = other.mark = parameter.mark = mark  # type: ignore[attr-defined]
    found = read(Whole(a=Later.of(Named("a", of=one)), b=Later.of(Named("b", of=other)), mark=mark, of=parameter))
    assert found.a.get().of.mark is found.b.get().of.mark is found.mark


def test_what_cannot_be_written_is_said_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        read([Later.of(Named("a", stream=sys._getframe()))])
