"""What settings accept before anything looks at them."""

from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.recipes.settings import RunConfig
from tests.cases import flat


def words(hint: Any) -> tuple[str, ...]:
    parts = [hint] if get_origin(hint) is Literal else [part for part in get_args(hint) if part is not type(None)]
    choice = all(get_origin(part) is Literal for part in parts)  # staleness may be a word, or a list
    return tuple(word for part in parts for word in get_args(part)) if choice else ()


CHOICES = {name: words(hint) for name, hint in get_type_hints(RunConfig).items() if words(hint)}


def test_the_fields_that_are_choices() -> None:
    assert set(CHOICES) == {"engine", "device", "dtype", "momentum_at", "data", "optimizer", "schedule"}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_of_its_words(name: str) -> None:
    for word in CHOICES[name]:
        assert getattr(flat(RunConfig, **{name: word}), name) == word
    for wrong in ("other", CHOICES[name][0].upper(), 3):
        with pytest.raises(ConfigError, match=f"{name} must be one of {', '.join(CHOICES[name])}"):
            flat(RunConfig, **{name: wrong})


def test_what_may_be_left_out_is_left_out() -> None:
    config = RunConfig()
    names = ("optimizer", "dtype", "lr", "momentum", "view", "mixing", "corrections", "clip", "queues", "staleness")
    assert all(getattr(config, name) is None for name in names)


@pytest.mark.parametrize("name", [name for name in CHOICES if name not in ("optimizer", "dtype")])
def test_none_is_no_choice_unless_it_may_be_left_out(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be one of"):
        flat(RunConfig, **{name: None})


def test_numpys_numbers_and_arrays_are_taken_for_what_they_say() -> None:
    settings = flat(Settings, queues=np.array([1, 1, 0]), clip=np.float32(0.5), staleness=None)  # type: ignore[arg-type]
    assert settings.queues == [1, 1, 0]
    assert type(settings.clip) is float
