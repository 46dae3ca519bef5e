"""Factories of the user's own: what is asked of them, and what is said of those that do not do it."""

import pickle
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.recipes.factories import Wanted, factory_of, refuse_args

HERE = __name__
MODEL = Wanted("model", nn.Module, "return a torch.nn.Module")
STEPPED = Wanted("schedule", nn.Module, "return a torch.nn.Module", given=1)


def plain(width: int = 4, *, deep: bool = False) -> nn.Module:
    return nn.Linear(width, 1 + deep)


def positional(width: int, /) -> nn.Module:
    return nn.Linear(width, 1)


def of(optimizer: Any, path: str = "", factory: int = 3) -> nn.Module:
    return nn.Linear(factory, len(path) + optimizer)


def exits() -> None:
    raise SystemExit("no more")


def wrong() -> int:
    return 3


def refuses() -> None:
    raise ConfigError("not with me")


class Outer:
    @staticmethod
    def make() -> nn.Module:
        return nn.Identity()


def made(name: str, wanted: Wanted = MODEL, *given: Any, **args: Any) -> Any:
    return factory_of(f"{HERE}:{name}", args, wanted)(*given)


def test_functions_classes_and_what_is_in_them_are_factories() -> None:
    assert made("plain", width=2, deep=True).weight.shape == (2, 2)
    assert type(made("Outer.make")) is nn.Identity
    assert factory_of("torch.nn:Linear", {"in_features": 2, "out_features": 3}, MODEL)().weight.shape == (3, 2)


def test_arguments_of_any_name_reach_the_factory_beside_what_it_is_given() -> None:
    """Also those that are called like something in between."""
    assert made("of", STEPPED, 1, path="abc", factory=5).weight.shape == (4, 5)


def test_a_factory_reaches_another_process() -> None:
    factory = factory_of("torch.nn:Linear", {"in_features": 2, "out_features": 3}, MODEL)
    again = pickle.loads(cloudpickle.dumps(factory))
    torch.manual_seed(0)
    one = factory().weight
    torch.manual_seed(0)
    assert torch.equal(one, again().weight)


BAD: dict[str, tuple[str, Wanted, dict[str, Any], str]] = {
    "near": ("plain", MODEL, {"widht": 3}, r"argument: widht\); did you mean width\? it takes: width=4, deep=False$"),
    "far": ("Outer.make", MODEL, {"x": 3}, r"argument: x\); it takes: none$"),
    "missing": ("of", MODEL, {}, r"missing a required argument: 'optimizer'; it takes: optimizer, path='', factory=3"),
    "twice": ("of", STEPPED, {"optimizer": 1}, "multiple values for argument 'optimizer'"),
    "by-position": ("positional", MODEL, {"width": 1}, "cannot be called so"),
    "no-place": (
        "plain",
        Wanted("loss", nn.Module, "", given=2),
        {},
        r"too many positional arguments; it takes: width",
    ),
    "nothing": ("nobody", MODEL, {}, "nothing of that name .*missing: nobody, module: .*test_factories.py"),
    "value": ("HERE", MODEL, {}, r"cannot be called \(model: .*:HERE, it is: str\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_called_is_refused_before_it_is_called(name: str) -> None:
    path, wanted, args, expected = BAD[name]
    with pytest.raises(ConfigError, match=expected):
        factory_of(f"{HERE}:{path}", args, wanted)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exits", r"the factory fails \(model: .*:exits\): SystemExit: no more \(line \d+ of .*test_factories.py\)$"),
        ("refuses", r"the factory fails \(model: .*:refuses\): ConfigError: not with me \(line"),
        ("wrong", r"no model \(model: .*:wrong, it returns: int\); return a torch.nn.Module$"),
    ],
)
def test_what_a_factory_does_wrong_is_said_with_its_name(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        made(name)


def test_an_interrupt_is_no_failure_of_the_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Outer, "make", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        made("Outer.make")


def test_what_has_a_name_takes_no_arguments() -> None:
    refuse_args({}, "mlp", "model")
    with pytest.raises(ConfigError, match=r"\(model: mlp, model.args: width, depth\); leave them out"):
        refuse_args({"width": 1, "depth": 2}, "mlp", "model")
