"""The typed door: what a type checker says of a user's script, and that the door has every option there is."""

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from mypy import api
from torch import nn

import stalegrid
from stalegrid.config import SHORT, Settings
from stalegrid.consensus.matrices import Matrix
from stalegrid.plans.task import Task
from stalegrid.train import OPTIONS
from stalegrid.written.groups import Group, groups_of, hints_of
from tests.cases import images, make_task

SCRIPT = """
from functools import partial

import networkx as nx
import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

import stalegrid

data = TensorDataset(torch.randn(8, 2), torch.zeros(8, dtype=torch.long))
model = nn.Linear(2, 2)
loss = nn.CrossEntropyLoss()
sgd = partial(optim.SGD, lr=0.1)


class Mine(stalegrid.Stashed):
    def seen(self, version: int) -> Tensor:
        return self.parameters


class Wrong(stalegrid.View):
    def seen(self, version: str) -> Tensor:  # wrong: override
        return self.parameters


class Pulled(stalegrid.AdaptThenCombine):
    def pull(self, gap: Tensor, share: float) -> Tensor:
        return gap * share


class Fade(stalegrid.Correction):
    def rate(self, update: stalegrid.Update) -> float:
        return 0.5 ** update.staleness


mine = stalegrid.Method("mine", "me", "0", lambda k, m: stalegrid.stale([0] * k, m), view=Mine, mixing=Pulled)
result = stalegrid.train(
    model, data, loss=loss, optimizer=sgd, test=data, method=mine, groups=2, stages=2, staleness=[2, 0],
    view=Mine, corrections=["clip=1.0", Fade, lambda site: Fade(site)], mixing=Pulled(), topology=nx.path_graph(2),
    batch_size=4, epochs=1, seed=3, engine="simulator", device="cpu", out="runs/mine", servers=2,
    training=stalegrid.TrainingSettings(dtype="float64"), output=stalegrid.OutputSettings(log_every=1), quiet=True,
)
accuracy: float | None = result.test_accuracy
stalegrid.train(model, data, loss=loss, optimizer=sgd, method="dsp", topology=np.eye(2), staleness="auto")
stalegrid.train(model, data, loss=loss, optimizer=sgd, topology=[[0.5, 0.5], [0.5, 0.5]], view="stashed")
stalegrid.train(model, data, loss=loss, optimizer=sgd, engine=stalegrid.EngineSettings(kind="simulator"))
loader = DataLoader(data, 4)
stalegrid.train(model, loader, loss=loss, optimizer=sgd, test=loader, collate_fn=lambda items: items[0], workers=2)
stalegrid.train(model, data, loss=loss, optimizer=sgd, stagse=2)  # wrong: call-arg
stalegrid.train(model, data, loss=loss, optimizer=sgd, stages="2")  # wrong: arg-type
stalegrid.train(model, data, loss=loss, optimizer=sgd, staleness="aut")  # wrong: arg-type
stalegrid.train(model, data, loss=loss, optimizer=sgd, engine="simulater")  # wrong: arg-type
stalegrid.train(model, data, loss=loss, optimizer=sgd, view=Pulled)  # wrong: arg-type
stalegrid.train(model, data, loss=loss, optimizer=sgd, mixing=Mine)  # wrong: arg-type
stalegrid.train(model, data, loss=loss, optimizer=sgd, topology=3)  # wrong: arg-type
stalegrid.train(model, data, loss=loss, optimizer=sgd, corrections=Fade)  # wrong: arg-type
stalegrid.train(model, data, loss=loss)  # wrong: call-arg
stalegrid.MixingSettings(perriod=2)  # wrong: call-arg
stalegrid.MixingSettings(period="2")  # wrong: arg-type
stalegrid.Method("mine", "me", "0", lambda k: stalegrid.stale([0] * k))  # wrong: arg-type, misc
result.sumary  # wrong: attr-defined
"""
"""Lines that end in ``# wrong`` name the errors that they hold; no other line holds any."""


@pytest.mark.thorough
def test_a_type_checker_finds_what_is_misspelt_or_of_another_type_and_nothing_else(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = pytestconfig.rootpath
    options = ["--strict", "--config-file", str(root / "pyproject.toml"), "--cache-dir", str(root / ".mypy_cache")]
    said, problem, _ = api.run([*options, str(script)])
    assert not problem
    found: dict[int, set[str]] = {}
    for line, code in re.findall(r"script\.py:(\d+):.* error: .*\[([a-z-]+)\]$", said, flags=re.MULTILINE):
        found.setdefault(int(line), set()).add(code)
    expected = {
        number: set(line.partition("# wrong: ")[2].split(", "))
        for number, line in enumerate(SCRIPT.splitlines(), 1)
        if "# wrong: " in line
    }
    assert len(expected) == 14
    assert found == expected, said


def parameters() -> dict[str, inspect.Parameter]:
    """Return what the door takes beside the task."""
    goes_on = {"resume", "reshape", "start_from"}
    task = {"model", "data", *hints_of(Task), "weights", "collate_fn", "callbacks", "loggers", "quiet", *goes_on}
    return {name: p for name, p in inspect.signature(stalegrid.train).parameters.items() if name not in task}


def test_the_door_has_every_group_and_every_short_name_and_nothing_else() -> None:
    groups = groups_of(Settings)
    short = {name for name, path in SHORT.items() if path.partition(".")[0] in groups}
    assert set(parameters()) == {*groups, *short}
    assert set(parameters()) <= set(OPTIONS)
    assert all(p.kind is p.KEYWORD_ONLY and p.default is None for p in parameters().values())


@pytest.mark.parametrize("name", parameters())
def test_an_option_of_the_door_has_the_type_of_its_field(name: str) -> None:
    hint, groups = get_type_hints(stalegrid.train)[name], groups_of(Settings)
    group, _, field = SHORT.get(name, name).partition(".")
    kind = groups[group]
    taken = set() if field else {described(kind)}
    if own := field or kind.OWN:
        taken |= set(map(described, parts(hints_of(kind)[own])))
    found = set(map(described, parts(hint)))
    assert taken <= found
    assert found - taken <= {described(NoneType), *MORE.get(name, ())}


def parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, get_origin(int | str)) else (hint,)


def described(hint: Any) -> str:
    """Return a type as text, any sequence as a list: what does not change is taken as it is."""
    if get_origin(hint) in (list, Sequence):
        return f"list of {sorted(map(described, parts(get_args(hint)[0])))}"
    return str(hint)


MORE = {
    "blocks": {described(list[nn.Module])},
    "costs": {described(str)},
    "out": {described(str)},
    "topology": {described(Matrix)},
}
"""What fields make of something else."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What the door asks for, which is not done."""
    found: list[Settings] = []
    monkeypatch.setattr(sys.modules["stalegrid.train"], "execute", lambda task, settings, **_: found.append(settings))
    return found


def test_an_option_that_is_left_out_changes_nothing(asked: list[Settings]) -> None:
    common: dict[str, Any] = {"loss": make_task().loss, "optimizer": make_task().optimizer}
    stalegrid.train(make_task().model, images(), **common)
    stalegrid.train(make_task().model, images(), **common, **dict.fromkeys(parameters()))
    assert asked == [Settings(), Settings()]


@pytest.mark.parametrize("name", groups_of(Settings))
def test_a_whole_group_and_the_field_that_it_stands_for_can_be_given(name: str, asked: list[Settings]) -> None:
    kind = groups_of(Settings)[name]
    usual = kind()
    given: Sequence[Group | Any] = [usual] if kind.OWN is None else [usual, getattr(usual, kind.OWN)]
    for value in given:
        options: dict[str, Any] = {name: value}
        stalegrid.train(make_task().model, images(), loss=make_task().loss, optimizer=make_task().optimizer, **options)
    assert asked == [Settings()] * len(given)
