"""Corrections as users write them."""

from functools import partial

import pytest
import torch

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.clip import Clip
from stalegrid.stages.corrections.delay_compensation import AdaptiveDelayCompensation, DelayCompensation
from stalegrid.stages.corrections.error_feedback import ErrorFeedback
from stalegrid.stages.corrections.named import CORRECTIONS, Correction, Update, makers, vectors_of
from stalegrid.stages.corrections.shrink import Shrink
from stalegrid.stages.corrections.staleness import PipeMareRate
from tests.sites import give_gradients, make_site, noise, step


def build(*texts: str) -> list[Correction]:
    site = make_site(staleness=(2, 1))
    return [make(site) for make in makers(texts)]


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_name_alone_makes_the_correction_of_that_name(name: str) -> None:
    (made,) = build(name)
    assert type(made) is CORRECTIONS[name]


def test_corrections_keep_the_order_in_which_they_are_given() -> None:
    made = build("clip=2", "shrink", "clip=3", "inverse-staleness")
    assert [type(c).__name__ for c in made] == ["Clip", "Shrink", "Clip", "InverseStaleness"]


def test_what_corrections_keep_is_known_before_they_are_made() -> None:
    assert vectors_of(["none"]) == vectors_of([]) == vectors_of(["clip=2", "shrink", "dc-asgd=0.1"]) == 0
    assert vectors_of(["error-feedback=0.5", "clip", "gap-aware", "dc-asgd-adaptive"]) == 3
    assert vectors_of([ErrorFeedback, partial(ErrorFeedback, c=2.0)]) == 1, "what a function makes is not known"
    for made, text in zip(build("error-feedback", "gap-aware"), ("error-feedback", "gap-aware"), strict=True):
        assert made.vectors == vectors_of([text])


def effect(correction: Correction) -> list[torch.Tensor]:
    """Return everything that a correction changes, for the same gradients and movement."""
    site = correction.site
    site.versions.hold(0)
    step(site)
    gradients = give_gradients(site, 5)
    update = Update(1, 2, site.versions.read(0))
    received = correction.received((noise(3),))
    correction.correct(update)
    changed = [p.grad.clone() for p in site.weights.trainable()]
    assert len(gradients) == len(changed)
    return [*received, *changed, torch.tensor(correction.rate(update), dtype=torch.float64)]


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("shrink=0.7", Shrink, 0.7),
        ("shrink", Shrink, 0.5),
        ("pipemare-rate=4", PipeMareRate, 4.0),
        ("pipemare-rate", PipeMareRate, 2.0),
        ("dc-asgd=0.5", DelayCompensation, 0.5),
        ("dc-asgd", DelayCompensation, 0.04),
        ("dc-asgd-adaptive=1e-1", AdaptiveDelayCompensation, 0.1),
        ("dc-asgd-adaptive", AdaptiveDelayCompensation, 2.0),
        ("clip=.25", Clip, 0.25),
        ("clip", Clip, 1.0),
    ],
)
def test_the_number_after_the_name_is_the_corrections(text: str, kind: type[Correction], number: float) -> None:
    given, direct = effect(build(text)[0]), effect(kind(make_site(staleness=(2, 1)), number))  # type: ignore[call-arg]
    other = effect(kind(make_site(staleness=(2, 1)), number / 2))  # type: ignore[call-arg]
    assert all(torch.equal(a, b) for a, b in zip(given, direct, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(given, other, strict=True))


def test_every_unit_gets_a_correction_of_its_own() -> None:
    (make,) = makers(["dc-asgd-adaptive"])
    one, other = make_site(), make_site()
    made = make(one), make(other)
    assert made[0] is not made[1]
    assert (made[0].site, made[1].site) == (one, other)


def test_none_are_none() -> None:
    assert makers([]) == makers(["none"]) == makers(("none",)) == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "halve",
            r"unknown correction \(correction: 'halve'\); there are: inverse-staleness, exponential-staleness, ",
        ),
        ("none=1", "unknown correction"),
        ("Shrink", "unknown correction"),
        ("", "unknown correction"),
        ("shrink=half", r"shrink takes a number \(corrections: 'shrink=half'\), as in shrink=0.5"),
        ("shrink=", "shrink takes a number"),
        ("clip=1=2", "clip takes a number"),
        ("inverse-staleness=2", r"inverse-staleness takes no number \(corrections: 'inverse-staleness=2'\)"),
        ("gap-aware=", "gap-aware takes no number"),
    ],
)
def test_what_is_none_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        makers(["clip", text])


def test_none_beside_others_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown correction"):
        makers(["none", "clip"])


@pytest.mark.parametrize("text", ["shrink=0", "shrink=-0.5", "shrink=1.5", "clip=0", "clip=-1"])
def test_a_number_without_a_meaning_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=text.split("=")[0]):
        build(text)


@pytest.mark.parametrize("text", ["pipemare-rate=0", "pipemare-rate=-3"])
def test_annealing_over_no_update_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="pipemare-rate anneals over at least one update"):
        build(text)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", ["pipemare-rate", "dc-asgd", "dc-asgd-adaptive", "clip", "shrink"])
def test_a_number_that_is_not_finite_is_refused(name: str, number: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} takes a finite number \(corrections: '{name}={number}'\)"):
        makers([f"{name}={number}"])
