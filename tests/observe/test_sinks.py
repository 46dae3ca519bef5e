"""Places that are made of others hand on what they are given."""

import pytest
from torch import nn

from stalegrid.errors import OutputError
from stalegrid.observe.records import VIRTUAL, Record
from stalegrid.observe.sinks import Dated, Dispensable, Several


class Refusing:
    """A place that takes one report and then no more."""

    def __init__(self) -> None:
        self.taken = 0

    def report(self, record: Record) -> None:
        self.taken += 1
        if self.taken > 1:
            raise OSError("no room")

    def evaluation(self, record: Record, model: nn.Module) -> None:
        self.taken += 100

    def units(self, vectors: object) -> None: ...

    def close(self) -> None: ...


class Closing(Refusing):
    """A place that says that it was closed, and may fail then."""

    def __init__(self, name: str, closed: list[str], error: Exception | None = None) -> None:
        super().__init__()
        self.name, self.closed, self.error = name, closed, error

    def close(self) -> None:
        self.closed.append(self.name)
        if self.error is not None:
            raise self.error


def test_all_places_are_closed_in_order_where_one_fails() -> None:
    closed = list[str]()
    sinks = [Closing("a", closed, OutputError("no room")), Closing("b", closed), Closing("c", closed)]
    with pytest.raises(OutputError, match="no room"):
        Several(sinks).close()
    assert closed == ["a", "b", "c"]


def test_a_place_that_fails_is_left_out_and_told_once() -> None:
    place, said = Refusing(), list[str]()
    sink = Dispensable("the tree", lambda: place, said.append)
    for _ in range(4):
        sink.report({})
    sink.evaluation({}, nn.Identity())
    sink.close()
    assert place.taken == 2
    assert said == ["training goes on without the tree: OSError: no room"]


def test_a_place_that_cannot_be_made_is_left_out() -> None:
    def make() -> Refusing:
        raise TypeError("broken package")

    said = list[str]()
    Dispensable("the tree", make, said.append).report({})
    assert said == ["training goes on without the tree: TypeError: broken package"]


class Taking(Refusing):
    """A place that keeps what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []

    def report(self, record: Record) -> None:
        self.records.append(record)

    def evaluation(self, record: Record, model: nn.Module) -> None:
        self.records.append(record)


def test_every_observation_has_the_date_of_its_moment() -> None:
    place, dates = Taking(), iter((0.5, 1.25))
    sink = Dated(place, lambda: next(dates))
    sink.report({"update": 1})
    sink.evaluation({"version": 1}, nn.Identity())
    assert place.records == [{"update": 1, VIRTUAL: 0.5}, {"version": 1, VIRTUAL: 1.25}]
