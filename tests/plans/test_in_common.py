"""What training changes in globals and classes is refused by name before a run; a cache that fills up is not."""

import itertools
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, default_collate

from stalegrid.config import Settings
from stalegrid.data import reading_of
from stalegrid.errors import ConfigError
from stalegrid.plans import plan_of
from stalegrid.runs import execute
from tests.cases import UPDATES, build, flat, images, make_settings, make_task

CALLS = 0
WEIGHT = {"beta": 0.0}
EMPTY: dict[str, int] = {}
SEEN: list[float] = []
SCALE = torch.ones(())
DRAWN = torch.Generator().manual_seed(1)
NUMPY = np.random.default_rng(1)
PYTHON = random.Random(1)
COUNT = itertools.count()
AVERAGE = nn.BatchNorm1d(3)
MASKS: dict[int, Tensor] = {}
MASK: Tensor | None = None
HELPERS = ModuleType("helpers")
HELPERS.calls = 0  # type: ignore[attr-defined]


class Options:
    """A place for numbers."""

    def __init__(self) -> None:
        self.scale = 1.0


OPTIONS = Options()


def by_calls(outputs: Tensor, targets: Tensor) -> Tensor:
    global CALLS
    CALLS += 1
    return cross_entropy(outputs, targets) * (2 if CALLS > 1000 else 1)  # one call more changes no number yet


def by_a_dictionary(outputs: Tensor, targets: Tensor) -> Tensor:
    WEIGHT["beta"] += 0.1
    return cross_entropy(outputs, targets) * WEIGHT["beta"]


def by_a_new_key(outputs: Tensor, targets: Tensor) -> Tensor:
    EMPTY["calls"] = EMPTY.get("calls", 0) + 1
    return cross_entropy(outputs, targets) / EMPTY["calls"]


def by_a_list(outputs: Tensor, targets: Tensor) -> Tensor:
    SEEN.append(0.0)
    return cross_entropy(outputs, targets) / len(SEEN)


def by_a_tensor(outputs: Tensor, targets: Tensor) -> Tensor:
    SCALE.mul_(0.9)
    return cross_entropy(outputs * float(SCALE), targets)


def by_an_object(outputs: Tensor, targets: Tensor) -> Tensor:
    OPTIONS.scale *= 0.9
    return cross_entropy(outputs, targets) * OPTIONS.scale


def by_its_own_attribute(outputs: Tensor, targets: Tensor) -> Tensor:
    by_its_own_attribute.calls += 1  # type: ignore[attr-defined]
    return cross_entropy(outputs, targets)


by_its_own_attribute.calls = 0  # type: ignore[attr-defined]


def by_a_generator(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs + torch.randn(outputs.shape, generator=DRAWN), targets)


def by_numpy(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets) * NUMPY.uniform()


def by_python(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets) * PYTHON.random()


def by_a_count(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets) / (1 + next(COUNT))


def by_a_module_of_torch(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(AVERAGE(outputs), targets)


def by_a_module_of_python(outputs: Tensor, targets: Tensor) -> Tensor:
    HELPERS.calls += 1
    return cross_entropy(outputs, targets)


def counting() -> int:
    global CALLS
    CALLS += 1
    return CALLS


def through_another(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets) / counting()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "global CALLS": by_calls,
    "global WEIGHT": by_a_dictionary,
    "global EMPTY": by_a_new_key,
    "global SCALE": by_a_tensor,
    "global OPTIONS": by_an_object,
    "by_its_own_attribute.__dict__": by_its_own_attribute,
    "global DRAWN": by_a_generator,
    "global NUMPY": by_numpy,
    "global PYTHON": by_python,
    "global COUNT": by_a_count,
    "global AVERAGE": by_a_module_of_torch,
    "helpers.calls": by_a_module_of_python,
    "it is: global CALLS": through_another,
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_counts_for_all_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        plan_of(make_task(loss=LOSSES[name]), make_settings(stages=2))


class Fading(nn.Module):
    """Counts the forwards of all of its kind."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n) to (B, n)."""
        type(self).calls += 1
        return x / type(self).calls


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is the other way."""

    strength = 0.0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return a copy."""
        Reversed.strength += 0.1
        ctx.strength = Reversed.strength
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient of x."""
        return -ctx.strength * gradient


class Adversary(nn.Module):
    """Reverses gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n) to (B, n)."""
        return Reversed.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def closed_over() -> nn.Module:
    state = {"scale": 1.0}

    class Closed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            state["scale"] *= 0.9
            return x * state["scale"]

    return Closed()


METHODS: tuple[dict[str, Any], ...] = (
    {"groups": 1, "stages": 1},
    {"groups": 1, "stages": 2},
    {"groups": 2, "stages": 1},
    {"method": "softsync", "learners": 2},
)


@pytest.mark.parametrize("given", METHODS, ids=str)
@pytest.mark.parametrize(
    ("part", "name"), [(Fading, "Fading.calls"), (Adversary, "Reversed.strength"), (closed_over, "forward: state")]
)
def test_a_forward_that_counts_for_all_is_refused_by_name(
    part: Callable[[], nn.Module], name: str, given: dict[str, Any]
) -> None:
    model = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 8), part(), nn.ReLU(), nn.Linear(8, 3)))
    with pytest.raises(ConfigError, match=name):
        plan_of(make_task(model=model), flat(Settings, batch_size=4, updates=UPDATES, **given))


class Read(Dataset[Any]):
    """Counts what is read of all of its kind."""

    reads = 0

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        Read.reads += 1
        return torch.full((2, 6, 6), float(i)), i % 3


def stacked(items: Any) -> Any:
    counting()
    return default_collate(items)


@pytest.mark.parametrize(
    ("data", "name"), [(Read(), "Read.reads"), (reading_of(images(), collate_fn=stacked), "global CALLS")]
)
def test_data_that_count_for_all_are_told_of_by_name(data: Any, name: str) -> None:
    with pytest.warns(UserWarning, match=f"reading data changes .*{name}"):
        plan_of(make_task(data=data), make_settings(stages=2))


class Cooling(torch.optim.SGD):
    """Has a rate that all of its kind lower."""

    rate = 0.1

    def step(self, closure: Any = None) -> Any:
        """Step at the next rate."""
        Cooling.rate *= 0.9
        self.param_groups[0]["lr"] = Cooling.rate
        return super().step(closure)


def test_an_optimizer_that_counts_for_all_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"Cooling\.rate"):
        plan_of(make_task(optimizer=lambda ps: Cooling(ps, lr=0.1), scheduler=None), make_settings(stages=2))


def cached(outputs: Tensor, targets: Tensor) -> Tensor:
    global MASK
    if MASK is None:
        MASK = torch.ones(3)
    if len(outputs) not in MASKS:
        MASKS[len(outputs)] = torch.full((len(outputs), 1), 0.5)
    return cross_entropy(outputs * MASKS[len(outputs)] * MASK, targets)


def test_a_list_that_grows_is_told_of() -> None:
    with pytest.warns(UserWarning, match="training adds to .* global SEEN"):
        plan_of(make_task(loss=by_a_list), make_settings(stages=2))


def test_what_is_made_at_its_first_use_is_no_state() -> None:
    found, expected = (result_of(loss) for loss in (cached, halved))
    assert MASKS
    assert MASK is not None
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def halved(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs * 0.5, targets)


def result_of(loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    task, settings = make_task(loss=loss), make_settings(stages=2, engine="simulator")
    return execute(task, settings, quiet=True).model.state_dict()
