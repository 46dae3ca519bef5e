import math

import pytest
import torch

from stalegrid.programs.schedules import stale
from stalegrid.stages.views.corrected import Corrected
from stalegrid.stages.views.named import Kept
from tests.sites import make_site, noise, parameters, step


@pytest.mark.parametrize(("staleness", "micro_batches", "bound"), [((1, 0), 1, 1), ((5, 0), 1, 5), ((5, 0), 2, 3)])
def test_delta_follows_its_recursion_and_the_backward_sees_the_weights_minus_it(
    staleness: tuple[int, ...], micro_batches: int, bound: int
) -> None:
    site = make_site(staleness=staleness, micro_batches=micro_batches)
    view = Corrected(site)
    gamma = math.exp(-2.0) ** (1 / bound)
    delta, version = torch.zeros_like(parameters(site)), 0
    for _ in range(bound + 3):
        assert view.forwarding(0) == (version, site.weights.flat)
        old = parameters(site)
        step(site, view)
        new, version = parameters(site), version + 1
        delta = gamma * delta + (1 - gamma) * (new - old)
        for updates in range(1, bound + 1):
            assert torch.equal(view.seen(version - updates), new - delta * float(updates))
        assert view.seen(version) is site.weights.flat


def test_a_steady_drift_is_undone_in_the_long_run() -> None:
    site = make_site(staleness=(3, 0))
    view = Corrected(site)
    drift = noise(site.weights.trained) / 16
    history = []
    for _ in range(60):
        history.append(parameters(site))
        view.overwriting()
        site.weights.flat[: site.weights.trained] += drift
        site.weights.version += 1
    torch.testing.assert_close(view.seen(site.weights.version - 3), history[-3], rtol=0, atol=1e-4)


def test_the_movement_includes_what_other_groups_mix_in_after_the_step() -> None:
    site = make_site(staleness=(2, 0))
    view = Corrected(site)
    gamma = math.exp(-2.0) ** (1 / 2)
    old = parameters(site)
    step(site, view)
    site.weights.flat[: site.weights.trained] += noise(site.weights.trained, key=7)  # mixing
    new = parameters(site)
    expected = new - (torch.zeros_like(old) * gamma + (new - old) * (1 - gamma)) * 1.0
    assert torch.equal(view.seen(0), expected)
    assert torch.equal(view.seen(0), expected), "a movement is taken in once"


def test_a_forward_ends_the_movement_of_the_update_before_it() -> None:
    site = make_site(staleness=(2, 0))
    view = Corrected(site)
    gamma = math.exp(-2.0) ** (1 / 2)
    old = parameters(site)
    step(site, view)
    moved = parameters(site) - old
    view.forwarding(0)
    site.weights.flat[: site.weights.trained] += 1.0
    assert torch.equal(view.seen(0), parameters(site) - moved * (1 - gamma))


def test_an_update_that_nobody_read_after_counts_too() -> None:
    site, other = make_site(staleness=(2, 0)), make_site(staleness=(2, 0))
    view, read = Corrected(site), Corrected(other)
    for _ in range(3):
        step(site, view)
        step(other, read)
        read.forwarding(0)
    assert torch.equal(view.seen(2), read.seen(2))


def test_running_statistics_are_no_part_of_the_movement() -> None:
    site = make_site(torch.nn.BatchNorm1d(3))
    view = Corrected(site)
    assert view.seen(0) is site.weights.flat
    step(site, view)
    assert view.seen(0).numel() == site.weights.trained < site.weights.flat.numel()


def test_a_stage_without_staleness_keeps_nothing_and_changes_nothing() -> None:
    site = make_site(stage=1)
    view = Corrected(site)
    step(site, view)
    assert view.seen(0) is view.forwarding(1)[1] is site.weights.flat
    assert view.nbytes == 0
    assert Corrected.kept(stale([2, 0]), 1) == Kept(graphs=1, inputs=0, copies=0)


def test_it_keeps_delta_and_during_an_update_the_old_weights() -> None:
    site = make_site()
    view = Corrected(site)
    vector = site.weights.trained * site.weights.flat.itemsize
    assert view.nbytes == vector
    step(site, view)
    assert view.nbytes == 2 * vector
    view.forwarding(0)
    assert view.nbytes == vector
    assert Corrected.kept(stale([2, 0]), 0) == Kept(graphs=3, inputs=0, copies=2)
