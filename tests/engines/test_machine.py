from typing import Any

import pytest
import torch

from stalegrid.engines import machine
from stalegrid.engines.machine import computing


class Library:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.asked.append((parameter, value))
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    for name in [n for n in machine.os.environ if n.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    made = Library()
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: made)
    return made


def test_threads_are_put_back_even_after_an_error() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with computing(before + 1):
            assert torch.get_num_threads() == before + 1
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    assert torch.get_num_threads() == before


def test_freed_memory_is_kept(library: Library) -> None:
    with computing(1):
        pass
    assert dict(library.asked) == {-3: 2**30, -1: -1}


def test_what_the_user_says_of_memory_counts(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    with computing(1):
        pass
    assert library.asked == []


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = object()
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: nothing)
    with computing(1):
        pass
