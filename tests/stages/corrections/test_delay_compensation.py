import pytest
import torch
from torch import nn

from stalegrid.stages.corrections.delay_compensation import AdaptiveDelayCompensation, DelayCompensation
from stalegrid.stages.corrections.named import Update
from stalegrid.stages.site import Site
from tests.sites import give_gradients, linear, make_site, noise, step


def moved(site: Site) -> tuple[Update, list[torch.Tensor]]:
    """Update twice; return what is known of the next update, and the parameters of two updates ago."""
    version = site.weights.version
    site.versions.hold(version)
    then = [p.detach().clone() for p in site.weights.trainable()]
    for _ in range(2):
        step(site)
    return Update(version + 2, 2, site.versions.read(version)), then


@pytest.mark.parametrize("lam", [0.04, 3.0])
def test_the_gradient_is_compensated_to_first_order(lam: float) -> None:
    site = make_site()
    update, then = moved(site)
    gradients = give_gradients(site, 9)
    DelayCompensation(site, lam).correct(update)
    for p, g, old in zip(site.weights.trainable(), gradients, then, strict=True):
        assert torch.equal(p.grad, g + lam * g * g * (p.detach() - old))
        assert not torch.equal(p.grad, g)


def test_of_a_loss_whose_curvature_is_the_square_of_its_gradient_it_is_the_gradient_of_now_to_first_order() -> None:
    """For ``-log(1 - w)``, ``f'' = f'^2``: the error of the compensated gradient is of second order in the movement."""
    site = make_site(nn.ParameterList([torch.full((1,), 0.3, dtype=torch.float64)]))
    (p,) = site.weights.trainable()
    errors = []
    for distance in (1e-2, 1e-3):
        then = site.weights.flat.clone()
        update = Update(1, 1, then - distance)
        p.grad = 1 / (1 - (p.detach() - distance))
        DelayCompensation(site, 1.0).correct(update)
        errors.append(abs(float(p.grad - 1 / (1 - p.detach()))))
    assert errors[1] < errors[0] / 90


def test_adaptively_the_strength_follows_the_mean_square_of_the_gradients() -> None:
    site = make_site()
    correction = AdaptiveDelayCompensation(site, 2.0)
    squares = [torch.zeros_like(p) for p in site.weights.trainable()]
    for n in range(4):
        update, then = moved(site)
        gradients = give_gradients(site, 100 + n)
        correction.correct(update)
        for i, (p, g, old) in enumerate(zip(site.weights.trainable(), gradients, then, strict=True)):
            squares[i] = squares[i] * 0.95 + g * g * (1 - 0.95)
            strength = 2.0 / (squares[i] + 1e-7).sqrt()
            assert torch.equal(p.grad, g + strength * g * g * (p.detach() - old))


def test_the_mean_square_is_of_the_gradient_before_its_compensation() -> None:
    site = make_site()
    correction = AdaptiveDelayCompensation(site, 1e3)
    update, then = moved(site)
    gradients = give_gradients(site, 0)
    correction.correct(update)
    (weight, _), (g, _) = site.weights.trainable(), gradients
    strength = 1e3 / (g * g * (1 - 0.95) + 1e-7).sqrt()
    assert torch.equal(weight.grad, g + strength * g * g * (weight.detach() - then[0]))


@pytest.mark.parametrize("kind", [DelayCompensation, AdaptiveDelayCompensation])
def test_a_gradient_that_is_not_late_stays(kind: type[DelayCompensation]) -> None:
    site = make_site()
    gradients = give_gradients(site, 0)
    kind(site).correct(Update(0, 0, site.versions.read(0)))
    assert all(torch.equal(p.grad, g) for p, g in zip(site.weights.trainable(), gradients, strict=True))


@pytest.mark.parametrize("kind", [DelayCompensation, AdaptiveDelayCompensation])
def test_a_parameter_without_a_gradient_is_left_out(kind: type[DelayCompensation]) -> None:
    site = make_site()
    update, _ = moved(site)
    weight, bias = site.weights.trainable()
    weight.grad, bias.grad = noise(*weight.shape), None
    correction = kind(site)
    correction.correct(update)
    assert bias.grad is None
    bias.grad = noise(*bias.shape)
    correction.correct(update)
    assert not torch.equal(bias.grad, noise(*bias.shape))


def test_both_ask_for_the_weights_of_the_forward() -> None:
    assert DelayCompensation.needs_forwarded
    assert AdaptiveDelayCompensation.needs_forwarded


def test_units_do_not_share_their_mean_squares() -> None:
    sites = [make_site(linear()) for _ in range(2)]
    corrections = [AdaptiveDelayCompensation(site) for site in sites]
    update, _ = moved(sites[0])
    give_gradients(sites[0], 3)
    corrections[0].correct(update)
    for site, correction in zip(sites, corrections, strict=True):
        site.weights.flat.fill_(1.0)
        give_gradients(site, 4)
        correction.correct(Update(2, 2, torch.zeros_like(site.weights.flat)))
    ours, theirs = (site.weights.trainable()[0].grad for site in sites)
    assert not torch.equal(ours, theirs), "one remembers a gradient, the other does not"
