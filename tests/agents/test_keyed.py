"""Every draw of a user's code has a key: the same bits on every engine and in every run, other bits for every batch."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stalegrid.stages.corrections.named import Correction, Update
from tests.cases import build, compare, images, make_settings, make_task, run_reference, run_simulator, train
from tests.generators import global_states


def torch_draw() -> float:
    return float(torch.rand(()))


def python_draw() -> float:
    return random.random()


def numpy_draw() -> float:
    return float(np.random.rand())


def mixed() -> float:
    return (torch_draw() + python_draw() + numpy_draw()) / 3


DRAWS = [torch_draw, python_draw, numpy_draw]


class Drawn(nn.Module):
    """Draws in its forward, in training and in evaluation, and in its backward."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        factor = self.draw()
        y = x * 1.0 if factor < 0.5 else x * factor
        if y.requires_grad:
            y.register_hook(lambda g: g * (0.5 + self.draw()))
        return y


class DrawnLoss(nn.CrossEntropyLoss):
    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target) * (0.5 + self.draw())


class DrawnRate(Correction):
    draw: Callable[[], float]

    def rate(self, update: Update) -> float:
        return 0.5 + self.draw()


def with_draws(draw: Callable[[], float], **changes: Any) -> dict[str, Any]:
    """Return a task whose every part draws from one global generator."""

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        made = torch.optim.SGD(parameters, lr=0.1 + 0.1 * draw())
        made.register_step_post_hook(lambda *_: [p.data.mul_(1 - 0.1 * draw()) for p in parameters])  # type: ignore
        return made

    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 8), Drawn(draw), nn.Linear(8, 3)))
    rate = type("Rate", (DrawnRate,), {"draw": staticmethod(draw)})
    return {
        "model": model,
        "data": images(),
        "loss": DrawnLoss(draw),
        "optimizer": optimizer,
        "test": images(),
        "corrections": [rate],
        "batch_size": 4,
        "updates": 4,
        "log_every": 1,
        "quiet": True,
        "engine": "simulator",
        **changes,
    }


def outcome(draw: Callable[[], float], **changes: Any) -> list[Any]:
    result = train(**with_draws(draw, **changes))
    numbers = [result.summary[name] for name in ("train_loss", "test_loss")]
    return [*(p.tolist() for p in result.model.parameters()), *numbers]


GRIDS: dict[str, dict[str, Any]] = {
    "one stage": {"method": "sgd"},
    "two stages": {"groups": 2, "stages": 2, "cuts": ["2"]},
    "made twice": {"stages": 2, "cuts": ["3"], "view": "recomputed", "staleness": [2, 0], "method": "pham-ahn"},
    "servers": {"method": "softsync", "learners": 2, "servers": 2},
}


def disturb() -> None:
    torch.rand(3), random.random(), np.random.rand()


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("grid", GRIDS)
def test_two_runs_draw_the_same_and_another_seed_draws_something_else(draw: Callable[[], float], grid: str) -> None:
    first = outcome(draw, seed=1, **GRIDS[grid])
    disturb()
    assert outcome(draw, seed=1, **GRIDS[grid]) == first
    assert outcome(draw, seed=2, **GRIDS[grid]) != first


@pytest.mark.parametrize("grid", GRIDS)
def test_a_run_leaves_the_users_generators_alone(grid: str) -> None:
    random.gauss(0, 1), np.random.randn()  # each keeps a second number for the next call
    before = global_states()
    outcome(mixed, **GRIDS[grid])
    assert global_states() == before


def test_processes_draw_what_the_simulator_draws() -> None:
    grid = {**GRIDS["two stages"], "processes": 2}
    assert outcome(mixed, engine="processes", **grid) == outcome(mixed, **grid)


def test_processes_draw_the_same_from_functions_that_a_model_keeps() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), Drawn(random.random), Drawn(np.random.rand), nn.Linear(8, 3))
    grid = {"method": "hardsync", "learners": 2, "processes": 1, "model": build(lambda: model)}
    assert outcome(mixed, engine="processes", **grid) == outcome(mixed, **grid)


class Dropped(nn.Module):
    """Layer drop, by a generator that is not torch's."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.layer, self.draw = nn.Linear(8, 8), draw

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training and self.draw() < 0.3 else x + torch.tanh(self.layer(x))


@pytest.mark.parametrize("draw", DRAWS[1:])
def test_layer_drop_is_that_of_the_plain_loop(draw: Callable[[], float]) -> None:
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 8), Dropped(draw), nn.Linear(8, 3)))
    for settings in (make_settings(), make_settings(1, 2, cuts=["3"], method="gpipe", micro_batches=2)):
        compare(run_simulator(make_task(model=model), settings), run_reference(make_task(model=model), settings))


@pytest.mark.parametrize("draw", DRAWS[1:])
def test_a_layer_that_draws_can_be_cut_off_whatever_the_state_of_the_generators(draw: Callable[[], float]) -> None:
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 8), Dropped(draw), nn.Linear(8, 3)))
    settings = make_settings(1, 2, cuts=["3"])
    random.seed(0), np.random.seed(0)
    first = run_simulator(make_task(model=model), settings)
    for seed in range(1, 8):
        random.seed(seed), np.random.seed(seed)
        compare(run_simulator(make_task(model=model), settings), first)
