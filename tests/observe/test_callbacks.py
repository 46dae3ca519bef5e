"""What callbacks are told, who asked for the end, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.observe.callbacks import Callback, Calling, Stop, find_callbacks, own_callbacks


class Noting(Callback):
    def __init__(self, stop_at: int = 99) -> None:
        self.stop_at = stop_at
        self.told: list[Any] = []

    def on_start(self, folder: Path) -> None:
        self.told.append(folder)

    def on_report(self, record: dict[str, Any]) -> bool:
        self.told.append(record.pop("update"))
        return False

    def on_evaluation(self, record: dict[str, Any], model: nn.Module) -> bool:
        assert not model.training
        with torch.no_grad():
            model.weight.zero_()  # type: ignore[union-attr,operator]
        self.told.append(record["version"])
        return bool(record["version"] >= self.stop_at)

    def on_end(self, summary: dict[str, Any]) -> None:
        self.told.append(summary)


class Raising(Noting):
    def on_report(self, record: dict[str, Any]) -> bool:
        raise Stop("it is enough")


def test_all_are_told_of_all_in_order_and_change_nothing_of_others(tmp_path: Path) -> None:
    one, other = Noting(), Noting()
    calling = Calling([one, other], tmp_path, lambda: {"version": 4})
    model = nn.Linear(1, 1)
    weight = model.weight.detach().clone()
    calling.report({"update": 2})
    calling.evaluation({"version": 4}, model)
    calling.finish()
    assert one.told == other.told == [tmp_path, 2, 4, {"version": 4}]
    assert torch.equal(model.weight, weight)
    assert not calling.stops()


def test_the_first_who_asks_for_the_end_is_named_once_that_is_heard(tmp_path: Path) -> None:
    calling = Calling([Noting(6), Raising(), Noting(3)], tmp_path, dict)
    calling.evaluation({"version": 2}, nn.Linear(1, 1))
    assert not calling.stops()
    calling.evaluation({"version": 3}, nn.Linear(1, 1))
    calling.report({"update": 4})
    assert calling.stopped == {}
    assert calling.stops()
    assert calling.stopped == {"by": "Noting", "asked_at": 3, "why": ""}


def test_who_raises_says_why(tmp_path: Path) -> None:
    calling = Calling([Raising()], tmp_path, dict)
    calling.report({"update": 4})
    assert calling.stops()
    assert calling.stopped == {"by": "Raising", "asked_at": 4, "why": "it is enough"}


def test_copies_are_called() -> None:
    mine = Noting()
    (own,) = own_callbacks([mine])
    own.on_start(Path())
    assert (own.told, mine.told) == ([Path()], [])  # type: ignore[attr-defined]


@pytest.mark.parametrize(("wrong", "shown"), [(Noting, "Noting"), (lambda record: True, "function")])
def test_what_is_no_callback_is_refused(wrong: Any, shown: str) -> None:
    with pytest.raises(ConfigError, match=rf"inherits from stalegrid.Callback \(it is: {shown}\)"):
        own_callbacks([wrong])


def test_what_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    class Holding(Callback):
        def __init__(self) -> None:
            self.file = (tmp_path / "log").open("w")

    holding = Holding()
    with pytest.raises(ConfigError, match=r"a callback cannot be copied.*open what it needs when it starts"):
        own_callbacks([holding])
    holding.file.close()


READY = Noting(7)


def made() -> Callback:
    return Noting(8)


def test_paths_name_callbacks_and_what_makes_them() -> None:
    found = find_callbacks([f"{__name__}:{name}" for name in ("READY", "made", "Noting")])
    assert [callback.stop_at for callback in found if isinstance(callback, Noting)] == [7, 8, 99]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("Noting", r"named by its path, PACKAGE.MODULE:NAME \(output.callbacks: 'Noting'\)"),
        (f"{__name__}:Lost", "the module has nothing of that name"),
        ("builtins:dict", r"whose class inherits from stalegrid.Callback \(it is: dict\)"),
        (
            "stalegrid:EarlyStopping",
            "cannot be made .*missing 1 required positional argument.*a function that makes it",
        ),
    ],
)
def test_paths_of_what_is_no_callback_are_refused(path: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_callbacks([path])
