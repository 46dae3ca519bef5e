"""Which mixing a run has, and when its groups mix."""

from dataclasses import dataclass
from typing import Any, ClassVar

import networkx as nx
import numpy as np
import pytest

from stalegrid.consensus import choose
from stalegrid.consensus.choose import choose_mixing, find_mixing, turns_of
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.mixing import Mixing
from stalegrid.consensus.mixings import MIXINGS, NONE, AdaptThenCombine
from stalegrid.consensus.settings import MixingSettings
from stalegrid.consensus.usual import UsualTurns
from stalegrid.errors import ConfigError


class Own(AdaptThenCombine):
    """A mixing of somebody's own, under a name that is taken."""


MADE = Own()


@pytest.mark.parametrize("mixing", MIXINGS, ids=lambda m: m.name)
def test_a_mixing_is_found_by_its_name_or_given(mixing: Mixing) -> None:
    assert find_mixing(mixing.name) is mixing
    assert find_mixing(mixing) is mixing


def test_names_are_each_of_one_mixing() -> None:
    assert len({mixing.name for mixing in MIXINGS}) == len(MIXINGS)
    assert NONE.name == "none"
    assert not NONE.averages_gradients
    assert not NONE.averages_parameters


def test_a_mixing_of_ones_own_is_given_as_a_class_a_value_or_a_path_of_either() -> None:
    assert find_mixing(MADE) is MADE
    assert type(find_mixing(Own)) is Own
    assert find_mixing(f"{__name__}:MADE") is MADE
    assert type(find_mixing(f"{__name__}:Own")) is Own


@dataclass(frozen=True)
class Numbered(Mixing):
    """A mixing with numbers."""

    name: ClassVar[str] = "numbered"
    rate: float = 0.5
    keep: float = 0.0


def test_a_mixing_has_its_numbers_behind_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Numbered()
    monkeypatch.setattr(choose, "MIXINGS", (NONE, usual))
    assert find_mixing("numbered") is find_mixing(Numbered()) is find_mixing(Numbered) is usual
    assert usual.text == "numbered"
    for one in (find_mixing("numbered, rate=0.25,keep=1"), find_mixing(Numbered(0.25, 1.0))):
        assert one == Numbered(0.25, 1.0)
        assert find_mixing(one.text) == one
        assert one.text == "numbered,rate=0.25,keep=1.0"
    for kind, text in {
        "numbered,rat=1": r"unknown number of numbered \(.*'rat'\); did you mean rate\? there are: rate, keep",
        "numbered,rate": r"given once \(mixing: 'numbered,rate'\), as in rate=0.5",
        "numbered,rate=1,rate=1": r"each number of a mixing is given once",
        "numbered,rate=fast": r"rate takes a number \(mixing: 'numbered,rate=fast'\)",
        "numbered,rate=inf": r"rate takes a finite number",
        "none,rate=1": r"none takes no number",
    }.items():
        with pytest.raises(ConfigError, match=text):
            find_mixing(kind)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "soup",
            r"unknown mixing \(mixing: 'soup'\); there are: none, combine-while-adapt, adapt-then-combine, all",
        ),
        ("all-redcue", r"did you mean all-reduce\?"),
        (
            f"{__name__}:pytest",
            rf"this is no mixing \(mixing: {__name__}:pytest, it is: module\); inherit from stalegrid.Mixing",
        ),
        (f"{__name__}:Nobody", r"nothing of that name"),
    ],
)
def test_what_is_no_mixing_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_mixing(kind)


def chosen(kind: Any, usual: Any, groups: int) -> Mixing:
    return choose_mixing(MixingSettings(kind=kind), usual, "dsp", groups)


def test_the_users_mixing_is_before_the_methods_and_a_single_group_has_none() -> None:
    assert chosen("all-reduce", "combine-while-adapt", 2).name == "all-reduce"
    assert chosen(None, "combine-while-adapt", 2).name == "combine-while-adapt"
    assert chosen(MADE, "none", 2) is MADE
    assert chosen(None, MADE, 2) is MADE
    assert chosen("none", "all-reduce", 2) is NONE
    for kind in ("all-reduce", MADE, None):
        assert chosen(kind, "all-reduce", 1) is NONE


def test_several_groups_need_a_mixing_where_the_method_says_nothing_of_them() -> None:
    with pytest.raises(
        ConfigError, match=r"dsp says nothing of groups \(groups: 3\); train one group, or name a mixing: none, combine"
    ):
        chosen(None, "none", 3)
    assert chosen("none", "none", 3) is NONE


def test_an_unknown_mixing_is_refused_where_a_single_group_would_not_use_it() -> None:
    with pytest.raises(ConfigError, match="unknown mixing"):
        chosen("soup", "none", 1)


def test_turns_are_as_asked_for() -> None:
    made = turns_of(MixingSettings(topology="star", period=3, lag=2), 4, 50)
    assert (made.period, made.lag, made.updates, made.groups) == (3, 2, 50, 4)
    np.testing.assert_array_equal(made.matrix.weights(0), mixing_matrix("star", 4).weights(0))


@pytest.mark.parametrize(
    ("asked", "usual", "found"),
    [
        ({}, {}, (1, 0)),
        ({}, {"period": 4, "lag": 2}, (4, 2)),
        ({"lag": 0}, {"period": 4, "lag": 2}, (4, 0)),
        ({"period": 1}, {"period": 4}, (1, 0)),
    ],
)
def test_turns_that_are_left_out_are_the_methods_one_by_one(
    asked: dict[str, int], usual: dict[str, int], found: tuple[int, int]
) -> None:
    made = turns_of(MixingSettings(**asked), 2, 50, usual=UsualTurns(**usual))
    assert (made.period, made.lag) == found


def test_usual_turns_say_what_is_not_as_if_left_out() -> None:
    assert UsualTurns(period=4).text == "period 4"
    assert UsualTurns(period=4, fragments=True).text == "period 4, fragments"
    assert UsualTurns(period=4, lag=2).text == "period 4, lag 2"
    assert UsualTurns().text == ""


@pytest.mark.parametrize(
    ("topology", "text"),
    [
        ("mesh", "unknown topology"),
        ("0-1", "there is no group 1; groups are 0 to 0"),
        ([[0.5, 0.5], [0.5, 0.5]], "is 2 x 2 but there are 1 groups"),
        (nx.path_graph(2), "must be the groups 0 to 0"),
    ],
)
def test_a_topology_is_checked_where_a_single_group_does_not_use_it(topology: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        turns_of(MixingSettings(topology=topology), 1, 5)
