"""Groups of settings: what a field may be, how groups are put together, and how they are written down."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from stalegrid.errors import ConfigError
from stalegrid.written.groups import Group, grouped, groups_of, plain, spread, text_of, unknown
from stalegrid.written.kept import to_yaml


class Shape:
    """Something that a user may inherit from."""


class Round(Shape):
    """A class of the user's."""


@dataclass(frozen=True, kw_only=True)
class Paint(Group):
    NAME: ClassVar[str] = "paint"
    OWN: ClassVar[str | None] = "colour"

    colour: Literal["red", "blue"] | Callable[..., Any] = "red"
    coats: int = 1
    thin: float | None = None
    parts: list[int] | Literal["auto"] | None = None
    where: Path | None = None
    shape: str | type[Shape] | None = None
    args: dict[str, Any] = field(default_factory=dict)
    dry: bool = False


@dataclass(frozen=True, kw_only=True)
class Wall(Group):
    NAME: ClassVar[str] = "wall"

    height: float = 2.0
    names: list[str | Callable[..., Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class House:
    paint: Paint = field(default_factory=Paint)
    wall: Wall = field(default_factory=Wall)


SHORT = {"coats": "paint.coats", "height": "wall.height", "lr": "optimizer.lr"}


def of(**given: Any) -> House:
    return grouped(House, given, SHORT)


# Types


def test_values_are_kept_in_their_types() -> None:
    made = Paint(colour="blue", coats=2, thin=1, parts=(1, 2), where="a/b", shape=Round, args={"x": [1]}, dry=True)  # type: ignore[arg-type]
    assert (made.colour, made.coats, made.thin, made.where, made.shape) == ("blue", 2, 1, Path("a/b"), Round)
    assert list(made.parts or ()) == [1, 2]
    assert Paint(colour=print).colour is print


def test_a_list_that_is_changed_later_changes_no_settings() -> None:
    parts, args = [1, 2], {"x": [1]}
    made = Paint(parts=parts, args=args)
    parts[0], args["x"][0], args["y"] = 7, 7, [7]
    assert (made.parts, made.args) == ([1, 2], {"x": [1]})


def test_numbers_and_arrays_of_numpy_are_taken_for_what_they_say() -> None:
    made = Paint(coats=np.int64(3), thin=np.float32(0.5), parts=np.array([2, 1]))  # type: ignore[arg-type]
    assert (made.coats, made.thin, made.parts) == (3, 0.5, [2, 1])
    assert (type(made.coats), type(made.thin)) == (int, float)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"colour": "green"}, r"paint.colour must be one of red, blue or a function \(paint.colour: 'green'\)"),
        ({"coats": 1.5}, r"paint.coats must be a whole number of 64 bits \(paint.coats: 1.5\)"),
        ({"coats": True}, r"whole number of 64 bits \(paint.coats: True\)"),
        ({"coats": 1 << 70}, r"whole number of 64 bits"),
        ({"coats": None}, r"\(paint.coats: None\)"),
        ({"thin": float("nan")}, r"paint.thin must be a number that is not infinite or left out \(paint.thin: nan\)"),
        ({"thin": "1"}, r"\(paint.thin: '1'\)"),
        ({"parts": [1, "2"]}, r"must be a list, each entry a whole number of 64 bits or one of auto or left out"),
        ({"parts": "usual"}, r"\(paint.parts: 'usual'\)"),
        ({"where": 3}, r"paint.where must be a path in UTF-8 or left out \(paint.where: 3\)"),
        ({"where": "a\0b"}, r"a path in UTF-8"),
        ({"shape": int}, r"must be text in UTF-8 or a class of Shape or left out"),
        ({"shape": "\ud800"}, r"text in UTF-8"),
        ({"args": {1: 2}}, r"paint.args must be names with values"),
        ({"dry": 1}, r"paint.dry must be true or false \(paint.dry: 1\)"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_it_must_be(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Paint(**given)


def test_a_long_value_is_not_told_whole() -> None:
    with pytest.raises(ConfigError) as caught:
        Paint(coats=list(range(10_000)))  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


# Put together


def test_a_group_is_given_as_itself_its_own_value_or_a_mapping_and_fields_by_short_names() -> None:
    usual = House()
    assert of() == usual
    for given in ({"paint": "blue"}, {"paint": {"colour": "blue"}}, {"paint": Paint(colour="blue")}):
        assert of(**given) == House(paint=Paint(colour="blue"))
    assert of(coats=2, paint="blue", wall={"height": 3}) == House(
        paint=Paint(colour="blue", coats=2), wall=Wall(height=3)
    )
    assert of(paint=Paint(colour="blue"), coats=2).paint == Paint(colour="blue", coats=2)
    assert groups_of(House) == {"paint": Paint, "wall": Wall}


def test_what_stands_for_a_group_may_be_any_value() -> None:
    assert of(paint=print).paint.colour is print


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"paint": {"coats": 2}, "coats": 2}, r"given twice \(paint.coats: 2 and 2\)"),
        ({"coats": 3, "paint": Paint(coats=2)}, r"given twice \(paint.coats: 2 and 3\); give it once"),
        ({"coat": 2}, r"unknown option \(option: 'coat'\); did you mean coats\? there are: paint, wall, coats, height"),
        ({"lr": 2}, r"unknown option \(option: 'lr'\)"),
        ({"paint.coats": 2}, r"unknown option \(option: 'paint.coats'\)"),
        ({"paint": {"coat": 2}}, r"unknown option of paint \(option of paint: 'coat'\); did you mean coats\?"),
        ({"paint": {3: 2}}, r"unknown option of paint \(option of paint: '3'\)"),
        ({"wall": 3}, r"wall is a group \(wall: 3\); name its options: height, names"),
        ({"wall": None}, r"wall is a group \(wall: None\)"),
        ({"wall": Paint()}, r"wall takes Wall \(wall: Paint\)"),
        ({"paint": "green"}, r"\(paint.colour: 'green'\)"),
    ],
)
def test_what_cannot_be_put_together_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        of(**given)


def test_what_is_asked_for_is_spread_over_groups_and_fields() -> None:
    assert spread(House, {"coats": 2, "paint": "blue", "height": 1}, SHORT) == {
        "paint": {"coats": 2, "colour": "blue"},
        "wall": {"height": 1},
    }
    assert spread(House, {}, SHORT) == {}


def test_an_unknown_name_comes_with_the_nearest_if_one_is_near() -> None:
    known = ["stashed", "current"]
    assert unknown("view", "stashd", known) == (
        "unknown view (view: 'stashd'); did you mean stashed? there are: stashed, current"
    )
    assert unknown("view", "qqq", known) == "unknown view (view: 'qqq'); there are: stashed, current"


# Written down


def test_only_what_is_not_usual_is_written_down_and_what_must_be() -> None:
    assert plain(House()) == {}
    assert plain(of(paint="blue", height=3)) == {"paint": {"colour": "blue"}, "wall": {"height": 3}}
    always = ("paint.colour", "paint.thin", "wall.height")
    assert plain(House(), always) == {"paint": {"colour": "red"}, "wall": {"height": 2.0}}  # what is left out is not
    assert plain(of(paint={"thin": 0.5}), always)["paint"] == {"colour": "red", "thin": 0.5}


def test_what_is_written_down_reads_back_equal() -> None:
    made = of(paint={"colour": "blue", "parts": [1, 2], "args": {"x": [1, {"y": None}]}, "dry": True}, height=1.5)
    written = plain(made)
    assert of(**written) == made
    shaped = of(paint={"where": Path("a/b"), "shape": Round})
    assert plain(shaped) == {"paint": {"where": "a/b", "shape": f"{__name__}:Round"}}


class Named:
    name = "mine"


def test_values_are_written_as_they_are_or_by_their_names() -> None:
    for value in (None, True, 1, 0.1, "text"):
        assert text_of(value) is value
    assert text_of((1, [Path("a"), Round])) == [1, ["a", f"{__name__}:Round"]]
    assert text_of({1: (2,)}) == {"1": [2]}
    found = text_of({"rows": [[np.float64(0.5), np.int64(2)]], "one": np.float32(0.5)})
    assert to_yaml(found) == "rows:\n- - 0.5\n  - 2\none: 0.5\n"
    assert text_of(of) == f"{__name__}:of"
    assert text_of(Named()) == "mine"
    assert text_of(object()) == "object"
    named: Mapping[str, Any] = text_of({"a": Named()})
    assert named == {"a": "mine"}
