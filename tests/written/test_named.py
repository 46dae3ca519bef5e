"""Values by name, from modules that are somebody else's."""

from pathlib import Path

import pytest

from stalegrid.errors import ConfigError
from stalegrid.written.named import is_path, name_of, said, value_of


class Outer:
    """Has something within."""

    class Inner:
        """Within."""


WHOLE = 3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which modules are found."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "expected"), [("a:b", True), ("a.b:c.d", True), ("ring", False), ("", False)])
def test_a_path_has_a_colon(name: str, expected: bool) -> None:
    assert is_path(name) is expected


@pytest.mark.parametrize("value", [None, 3, Outer, {"a": "b:c"}])
def test_what_is_no_text_is_no_path(value: object) -> None:
    assert not is_path(value)


def test_a_path_names_a_value_or_what_is_within_one() -> None:
    assert value_of(f"{__name__}:WHOLE", "thing") == 3
    assert value_of(f"{__name__}:Outer", "thing") is Outer
    assert value_of(f"{__name__}:Outer.Inner", "thing") is Outer.Inner


def test_a_class_or_function_is_named_by_its_path_and_found_by_it() -> None:
    for value in (Outer, Outer.Inner, test_what_is_no_text_is_no_path):
        assert value_of(name_of(value), "thing") is value
    assert name_of(3) == "int"


@pytest.mark.parametrize("path", ["a:", ":a", "a b:c", "a:b-c", "a..b:c", "a/b:c", "a:b:c", "1:2", ":"])
def test_what_is_no_path_of_a_value_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"a value of your own is named by PACKAGE.MODULE:NAME \(model: ") as caught:
        value_of(path, "model")
    assert f"(model: {path!r})" in str(caught.value)


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        value_of("no_such_module_anywhere:thing", "data")
    text = str(caught.value)
    assert text.startswith("the module cannot be imported (data: no_such_module_anywhere:thing): ModuleNotFoundError: ")
    assert "python -c 'import no_such_module_anywhere' finds from here" in text


def test_a_module_that_raises_shows_its_own_last_line_and_where(folder: Path) -> None:
    (folder / "broken_by_us.py").write_text("x = 1\n\nraise KeyError('here')\n")
    with pytest.raises(ConfigError, match="cannot be imported") as caught:
        value_of("broken_by_us:x", "model")
    assert f"KeyError: 'here' (line 3 of {folder / 'broken_by_us.py'})" in str(caught.value)


def test_a_module_that_is_no_python_is_told_in_a_line(folder: Path) -> None:
    (folder / "garbled_by_us.py").write_text("def (:\n")
    with pytest.raises(ConfigError, match="SyntaxError"):
        value_of("garbled_by_us:x", "model")


@pytest.mark.parametrize(("name", "missing"), [("NOTHING", "NOTHING"), ("Outer.Other", "Other"), ("None_.x", "None_")])
def test_a_name_that_is_not_there_is_named(name: str, missing: str) -> None:
    with pytest.raises(ConfigError) as caught:
        value_of(f"{__name__}:{name}", "loss")
    assert str(caught.value).startswith("the module has nothing of that name ")
    assert f"(loss: {__name__}:{name}, missing: {missing}, module: {__file__})" in str(caught.value)


def test_a_problem_is_said_in_its_last_line_and_its_place() -> None:
    with pytest.raises(ValueError, match="of several") as caught:
        raise ValueError("of several\nlines")
    assert said(caught.value).startswith("ValueError: of several lines (line ")
    assert said(caught.value).endswith(f"of {__file__})")
    assert said(ValueError("never raised")) == "ValueError: never raised"
