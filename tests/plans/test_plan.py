"""What cannot work is refused before anything starts, with the value and the remedy."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from stalegrid.config import Settings
from stalegrid.consensus.mixings import AdaptThenCombine
from stalegrid.consensus.usual import UsualTurns
from stalegrid.errors import ConfigError
from stalegrid.methods.choose import find_grid
from stalegrid.stages.views.stashed import Stashed
from tests.cases import (
    Kept,
    changed,
    compare,
    flat,
    hold_to_the_loop,
    images,
    make_plan,
    make_settings,
    make_task,
    run_simulator,
)


class Layers(nn.Module):
    """Three layers; the middle one is given."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(72, 6)
        self.middle = middle
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x.flatten(1))))


class Recomputed(nn.Module):
    """Activation checkpointing of a function."""

    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.eye(6))
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().sum()) == float("inf"):
            return x
        return checkpoint(lambda h: torch.tanh(F.linear(h, self.w)), x, use_reentrant=self.use_reentrant)


class Branching(nn.Module):
    """An outermost forward that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(72, 3)
        self.b = nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.a(x) if float(x.detach().sum()) > 0 else self.b(x)


def refuse(text: str, task: dict[str, Any], groups: int = 1, stages: int = 2, **settings: Any) -> None:
    options = {"cuts": None, **settings}
    with pytest.raises(ConfigError, match=text):
        make_plan(make_task(**task), make_settings(groups, stages, **options))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("middle", [Kept(6), Recomputed(False), Recomputed(True)])
def test_a_stage_whose_late_backward_would_not_be_exact(middle: nn.Module) -> None:
    refuse("a late backward of this stage would not see", {"model": Layers(middle)}, cuts=["last"])
    make_plan(make_task(model=Layers(middle)), make_settings(1, 2, cuts=["last"], staleness=[0, 0]))


def test_a_loss_that_is_not_one_number() -> None:
    refuse(r"the loss must be one number.*\(4,\)", {"loss": nn.CrossEntropyLoss(reduction="none")})


def test_a_loss_that_does_not_take_the_outputs() -> None:
    refuse("the loss does not accept the model's outputs", {"loss": nn.NLLLoss(weight=torch.ones(9))})


def test_an_optimizer_that_needs_a_closure() -> None:
    refuse("its step needs: closure", {"optimizer": torch.optim.LBFGS, "scheduler": None})


def test_a_scheduler_that_needs_a_metric() -> None:
    refuse("its step needs: metrics", {"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau})


def test_an_optimizer_over_the_users_own_model() -> None:
    model = Layers(nn.ReLU())
    own = {"model": model, "optimizer": lambda given: torch.optim.SGD(model.parameters(), lr=0.1)}
    refuse("trains other parameters than it was given", own)


def test_a_test_set_that_does_not_fit() -> None:
    wrong = TensorDataset(torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64))
    refuse("does not accept the test data", {"test": wrong})
    empty = TensorDataset(torch.zeros(0, 2, 6, 6), torch.zeros(0, dtype=torch.int64))
    refuse("the test data is empty", {"test": empty})


def test_complex_parameters() -> None:
    model = Layers(nn.ReLU())
    model.extra = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    refuse("complex parameters cannot be trained", {"model": model})


def test_hooks_on_gradients_that_a_cut_would_lose() -> None:
    model = Layers(nn.ReLU())
    model.register_full_backward_hook(lambda module, given, made: None)
    refuse("hooks on the gradients of a module .*cannot be traced", {"model": model})


def test_groups_that_would_never_mix() -> None:
    refuse(r"would never mix \(period: 1, lag: 99, updates: 8\)", {}, groups=2, lag=99)


def test_momentum_that_is_not_there_cannot_be_mixed() -> None:
    plain = {"optimizer": partial(torch.optim.SGD, lr=0.1), "scheduler": None}
    refuse("there is no momentum to mix", plain, groups=2, momentum=True)


def test_one_stage_needs_no_tracing() -> None:
    task, settings = make_task(model=Branching()), make_settings(2, 1)
    hold_to_the_loop(task, settings)
    refuse("cannot be traced", {"model": Branching()}, stages=2)


def test_an_output_that_views_a_parameter_does_not_change_on_its_way() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(72))
            self.first = nn.Linear(72, 72)
            self.second = nn.Linear(72, 3)

        def forward(self, x: Tensor) -> Tensor:
            g = self.scale.unsqueeze(0)
            return self.second(torch.tanh(self.first(x.flatten(1) * g)) * g)

    task, settings = make_task(model=Scaled()), make_settings(1, 2, cuts=["second"])
    plan = make_plan(task, settings)
    assert plan.partition.names
    settings = make_settings(1, 2, cuts=["tanh"])
    hold_to_the_loop(task, settings)


def test_values_of_other_types_are_taken_for_what_they_say() -> None:
    settings = flat(Settings, out="runs/a", epochs=np.float64(2), topology=np.full((2, 2), 0.5))
    assert settings.output.folder == Path("runs/a")
    assert type(settings.training.epochs) is float
    assert settings.mixing.topology == [[0.5, 0.5], [0.5, 0.5]]
    with pytest.raises(
        ConfigError, match=r"engine.kind must be one of processes, simulator \(engine.kind: 'simulater'\)"
    ):
        flat(Settings, engine="simulater")


def test_the_data_is_drawn_alike_by_python_and_numpy() -> None:
    class Noisy(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            import random

            x, y = super().__getitem__(index)
            return x + random.random() + np.random.rand(), y

    task, settings = make_task(data=Noisy(*images().tensors)), make_settings(2, 2)
    hold_to_the_loop(task, settings)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("dsp", {"queues": [1, 0, 1]}),
        ("fdg", {}),
        ("fdg", {"corrections": ["none"]}),
        ("pipemare", {"clip": 0.5, "corrections": ["pipemare-rate=3", "inverse-staleness"]}),
        ("pipedream-2bw", {}),
        ("paci", {"view": "recomputed"}),
        ("gpipe", {}),
    ],
)
def test_settled_settings_leave_nothing_open_and_run_the_same_way(method: str, changes: dict[str, Any]) -> None:
    task, settings = make_task(), make_settings(1, 3, method=method, cuts=None, **changes)
    plan = make_plan(task, settings)
    settled = plan.settled(settings)
    again = make_plan(task, settled)
    assert again.schedule == plan.schedule
    assert (again.view, again.mixing, again.partition.names) == (plan.view, plan.mixing, plan.partition.names)
    assert again.held == plan.held
    assert settled.method.corrections is not None
    assert (settled.method.queues, settled.method.clip) == (None, settings.method.clip)
    assert again.settled(settled) == settled
    compare(run_simulator(task, settings_at(plan.partition.names, settings)), run_simulator(task, settled))


def settings_at(cuts: tuple[str, ...], settings: Settings) -> Settings:
    """Return settings cut where a plan has measured that it should."""
    return changed(settings, cuts=list(cuts))


def test_a_view_delays_its_schedule() -> None:
    for view, delay in (("stashed", 0), ("double-buffered", 1)):
        plan = make_plan(make_task(), make_settings(1, 3, staleness=[2, 1, 0], micro_batches=2, view=view))
        assert plan.schedule.delay == delay
        assert [plan.schedule.bound(k) for k in range(3)] == ([1, 1, 1] if delay else [1, 1, 0])


def test_only_one_view_makes_graphs_late() -> None:
    for view in ("stashed", "recomputed"):
        plan = make_plan(make_task(), make_settings(1, 3, staleness=[2, 1, 0], view=view))
        assert [plan.program.recomputes(k) for k in range(3)] == (
            [True, True, False] if view == "recomputed" else [False] * 3
        )


def test_a_methods_turns_are_settled_and_the_users_are_before_them() -> None:
    method = replace(find_grid("pham-ahn"), name="rare", turns=UsualTurns(period=3, lag=2))
    settings = make_settings(2, 2, method=method, lag=1)
    plan = make_plan(make_task(), settings)
    assert (plan.turns.period, plan.turns.lag) == (3, 1)
    settled = plan.settled(settings)
    assert (settled.mixing.period, settled.mixing.lag) == (3, 1)
    assert make_plan(make_task(), settled).settled(settled) == settled


class OwnMixing(AdaptThenCombine):
    """A mixing of the user's."""


@pytest.mark.parametrize("kind", [OwnMixing, OwnMixing(), f"{__name__}:OwnMixing"], ids=["class", "value", "path"])
def test_what_is_the_users_own_stays_as_it_was_given_and_can_be_found_again(kind: Any) -> None:
    class OwnView(Stashed):
        """Within a function, where no path leads."""

    settings = make_settings(2, 2, mixing=kind, view=OwnView)
    settled = make_plan(make_task(), settings).settled(settings)
    assert settled.mixing.kind is kind
    assert settled.method.view is OwnView
    again = make_plan(make_task(), settled)
    assert isinstance(again.mixing, OwnMixing)
    assert again.settled(settled) == settled
    one = make_settings(1, 2, mixing=kind)
    assert make_plan(make_task(), one).settled(one).mixing.kind == "none"
