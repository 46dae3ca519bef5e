"""What is refused of runs whose stages are to be compiled, before any process starts."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.plans import compiling
from tests.cases import build, flat, images, make_plan, make_settings, make_task, plan_of
from tests.stages.test_compiled import Branching
from tests.test_compiled import BATCH, layers


def refused(why: str, task: Any = None, **options: Any) -> None:
    settings = make_settings(**{"groups": 1, "stages": 3, "compile": True, **options})
    with pytest.raises(ConfigError, match=re.escape(why)):
        plan_of(make_task() if task is None else task, settings)


@pytest.mark.parametrize("view", ["current", "corrected", "predicted", "predicted-twice"])
def test_a_view_that_shows_a_backward_other_weights(view: str) -> None:
    refused(f"(compile: true, view: {view}, stage: 0); take view stashed, recomputed or double-buffered", view=view)


def test_learners() -> None:
    settings = flat(Settings, method="softsync", updates=2, batch_size=4, compile=True)
    why = r"softsync has learners of the whole model \(compile: true\); leave compile out"
    with pytest.raises(ConfigError, match=why):
        plan_of(make_task(), settings)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "fault_of_compiler", lambda: "no working compiler")
    refused("torch compiles nothing here (compile: true): no working compiler; it needs a compiler of C++ (g++")


class Looking(nn.Module):
    """A net that looks at numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.inner, self.last = nn.Linear(72, 3), Branching(), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.inner(self.flat(x.flatten(1))))


@pytest.mark.usefixtures("compiler")
def test_a_model_that_cannot_be_compiled_in_one_piece() -> None:
    why = "a stage cannot be compiled (stage: 0): torch cannot compile a forward in one piece (module: Looking)"
    refused(why, make_task(model=build(Looking)), stages=1, method="sgd", cuts=None)


class Noisy(nn.Module):
    """Does something else where it is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.inner(x.flatten(1))
        return y * 2 if torch.compiler.is_compiling() else y


@pytest.mark.usefixtures("compiler")
def test_a_model_that_does_something_else_where_it_is_compiled() -> None:
    why = "a compiled stage computes something else than the plain one, by more than rounding (stage: 0)"
    refused(why, make_task(model=build(Noisy)), stages=1, method="sgd", cuts=None)


class Kinked(nn.Module):
    """Lets through what a rounding decides, as a ReLU does where values are all but zero."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(72, 64), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.inner(x.flatten(1))
        nothing = y.sum(1, keepdim=True) - y.double().sum(1, keepdim=True)
        return self.last(torch.where(nothing > 0, y, -y))


@pytest.mark.usefixtures("compiler")
def test_rounding_may_move_a_compiled_stage_by_as_much_as_it_moves_the_plain_one() -> None:
    task = make_task(model=build(Kinked))
    with torch.no_grad():
        model, (x, _) = task.model, next(iter(torch.utils.data.DataLoader(images(BATCH), BATCH)))
        found, expected = torch.compile(model, fullgraph=True, dynamic=False)(x), model(x)
    assert float((found - expected).norm()) > 0.01 * float(expected.norm())
    make_plan(task, make_settings(1, 1, method="sgd", batch_size=BATCH, compile=True))


class Undecided(nn.Module):
    """Takes one of two equal values where an image is empty, and when compiled the other, as a maximum may."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(72, 3), nn.Linear(72, 3)
        nn.init.zeros_(self.first.bias)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Any:
        x = x.flatten(1)
        ink = x.sum(1, keepdim=True)
        return torch.where(ink >= 0 if torch.compiler.is_compiling() else ink > 0, self.first(x), self.second(x))


@pytest.mark.usefixtures("compiler")
def test_rounding_decides_between_equals_where_there_is_nothing() -> None:
    some = [(x * (number % 2), y) for number, (x, y) in enumerate(images(BATCH))]
    task = make_task(model=build(Undecided), data=some)
    make_plan(task, make_settings(1, 1, method="sgd", batch_size=BATCH, compile=True))


class Masked(nn.Module):
    """Does something else where it is compiled, of what a mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(72, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        y = torch.softmax(self.inner(x.flatten(1)) + mask, 1)
        return y * 2 if torch.compiler.is_compiling() else y


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("least", [-torch.inf, torch.finfo(torch.float32).min, -1e9])
def test_rounding_does_not_undo_a_mask(least: float) -> None:
    mask = torch.tensor([0.0, 0.0, least])
    task = make_task(model=build(Masked), data=[((x, mask), y % 2) for x, y in images(BATCH)])
    why = "a compiled stage computes something else than the plain one, by more than rounding (stage: 0)"
    refused(why, task, stages=1, method="sgd", cuts=None)


@pytest.mark.usefixtures("compiler")
def test_a_plan_knows_what_is_compiled() -> None:
    task, options = make_task(model=build(layers)), {"cuts": ["3"], "batch_size": BATCH}
    usual, plan = (make_plan(task, make_settings(1, 2, compile=compiles, **options)) for compiles in (False, True))
    assert usual.given == ()
    assert [[[spec.shape for spec in layout] for layout in stage] for stage in plan.given] == [
        [[(BATCH, 2, 6, 6)]],
        [[spec.shape for spec in plan.partition.crossing(0)[0]]],
    ]
    assert all(one >= other for one, other in zip(plan.held, usual.held, strict=True))
    assert plan.settled(make_settings(1, 2, compile=True, **options)).training.compile


@pytest.mark.usefixtures("compiler")
def test_the_last_batch_of_an_epoch_has_a_shape_of_its_own() -> None:
    task = make_task(model=build(layers), data=images(BATCH + 4))
    plan = make_plan(task, make_settings(1, 2, cuts=["3"], batch_size=BATCH, compile=True, drop_last=False))
    assert [[layout[0].shape[0] for layout in stage] for stage in plan.given] == [[BATCH, 4], [BATCH, 4]]
