"""The door: corrections of the user's own."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stalegrid
from stalegrid.errors import ConfigError
from stalegrid.methods.settings import MethodSettings
from stalegrid.stages.corrections.named import Correction, Update
from stalegrid.stages.site import Site
from tests import cases
from tests.cases import UPDATES, build, images

LATE = 2


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def train(**changes: Any) -> stalegrid.Result:
    options = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.5, momentum=0.9),
        "groups": 1,
        "stages": 1,
        "staleness": [LATE],
        "batch_size": 4,
        "updates": UPDATES,
        "engine": "simulator",
        "quiet": True,
    }
    return cases.train(build(small), images(), **(options | changes))


def state(**changes: Any) -> list[Tensor]:
    return list(train(**changes).model.state_dict().values())


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def norm(site: Site) -> float:
    return float(torch.stack([p.grad.norm() for p in site.weights.trainable() if p.grad is not None]).norm())


class Seen(Correction):
    """Notes how long the gradients are when it acts and when the step is made, and doubles them."""

    acting: list[float] = []  # noqa: RUF012
    steps: list[float] = []  # noqa: RUF012

    def correct(self, update: Update) -> None:
        self.acting.append(norm(self.site))
        for p in self.site.weights.trainable():
            if p.grad is not None:
                p.grad *= 2.0

    def stepped(self, update: Update) -> None:
        self.steps.append(norm(self.site))


@pytest.fixture(autouse=True)
def _forget() -> None:
    Seen.acting, Seen.steps = [], []


@pytest.mark.filterwarnings("ignore:training adds to")
def test_the_users_own_acts_after_a_named_one_that_stands_before_it() -> None:
    train(corrections=["clip=0.25", Seen])
    assert Seen.acting[-UPDATES:] == pytest.approx([0.25] * UPDATES, rel=1e-5)
    assert Seen.steps[-UPDATES:] == pytest.approx([0.5] * UPDATES, rel=1e-5)


@pytest.mark.filterwarnings("ignore:training adds to")
def test_the_users_own_acts_before_a_named_one_that_stands_after_it() -> None:
    train(corrections=[Seen, "clip=0.25"])
    assert min(Seen.acting[-UPDATES:]) > 0.25
    assert Seen.steps[-UPDATES:] == pytest.approx([0.25] * UPDATES, rel=1e-5)


@pytest.mark.filterwarnings("ignore:training adds to")
def test_clipping_by_the_setting_acts_after_the_users_own() -> None:
    train(corrections=[Seen], method=MethodSettings(clip=0.25))
    assert min(Seen.acting[-UPDATES:]) > 0.25
    assert Seen.steps[-UPDATES:] == pytest.approx([0.25] * UPDATES, rel=1e-5)


def test_a_correction_written_by_the_user_is_the_named_one_to_the_bit() -> None:
    class Mine(Correction):
        def rate(self, update: Update) -> float:
            return 1 / max(1, update.staleness)

    named = state(corrections=["inverse-staleness"])
    assert same(state(corrections=[Mine]), named)
    assert not same(state(corrections=[]), named)


def test_what_makes_a_correction_may_be_any_function_of_a_site() -> None:
    asked: list[Site] = []

    def make(site: Site) -> Correction:
        asked.append(site)
        return Correction(site)

    assert same(state(corrections=[make]), state(corrections=[]))
    (used,) = asked
    assert (used.unit.group, used.unit.stage, used.updates) == (0, 0, UPDATES)
    assert used.schedule.windows == (LATE + 1,)
    assert used.bound == LATE
    assert used.weights.version == UPDATES


def test_corrections_that_are_given_replace_the_methods() -> None:
    common = {"method": "fdg", "stages": 2, "staleness": [LATE, 0], "cuts": ["3"]}
    shrunk, plain = state(**common), state(corrections=["none"], **common)
    assert not same(shrunk, plain)
    assert same(state(corrections=[], **common), plain)
    assert same(state(corrections=["shrink=0.5"], **common), shrunk)
    assert same(state(corrections=[Correction], **common), plain)


def test_a_correction_that_cannot_be_made_is_refused() -> None:
    def broken(site: Site) -> Correction:
        raise ZeroDivisionError("ouch")

    with pytest.raises(ConfigError, match="a correction cannot be built: ouch"):
        train(corrections=[broken])


def test_a_correction_that_fails_is_refused() -> None:
    class Broken(Correction):
        def stepped(self, update: Update) -> None:
            raise ZeroDivisionError("ouch")

    with pytest.raises(ConfigError, match=r"the corrections, the optimizer or the scheduler cannot be .*: ouch"):
        train(corrections=[Broken])


@pytest.mark.parametrize("text", ["dc-asgd", "dc-asgd-adaptive", "gap-aware"])
def test_the_weights_of_the_forward_are_ambiguous_for_several_micro_batches(text: str) -> None:
    with pytest.raises(ConfigError, match=r"\(micro_batches: 2\); take micro_batches 1"):
        train(corrections=[text], method=MethodSettings(micro_batches=2))
    train(corrections=[text], updates=2)


def test_a_users_own_that_asks_for_the_weights_of_the_forward_is_refused_too() -> None:
    class Asking(Correction):
        needs_forwarded = True

    with pytest.raises(ConfigError, match="micro_batches"):
        train(corrections=[Asking], method=MethodSettings(micro_batches=2))


def test_gap_aware_needs_sgd() -> None:
    with pytest.raises(ConfigError, match=r"gap-aware is defined for SGD \(optimizer: Adam\)"):
        train(corrections=["gap-aware"], optimizer=torch.optim.Adam)


def test_clipping_to_no_norm_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"clip=0\.0"):
        train(method=MethodSettings(clip=0.0))


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown view .*'stale'.*; .*there are: stashed, current, recomputed"):
        train(view="stale")


def test_a_method_that_is_its_optimizer_takes_no_other() -> None:
    with pytest.raises(ConfigError, match=r"async-nesterov is defined by its optimizer \(optimizer: SGD\)"):
        train(method="async-nesterov")


def test_queues_are_the_staleness_that_they_allow() -> None:
    common = {"stages": 3, "cuts": ["3", "5"]}
    queued = train(staleness=None, **common, method=MethodSettings(queues=[1, 1, 0]))
    assert [s["max"] for s in queued.summary["staleness"]] == [4, 2, 0]
    assert same(list(queued.model.state_dict().values()), state(staleness=[4, 2, 0], **common))
