import torch

from stalegrid.stages.corrections.named import Correction, Update
from tests.sites import give_gradients, make_site, noise, parameters, step


def test_a_correction_that_overrides_nothing_changes_nothing() -> None:
    site = make_site()
    correction = Correction(site)
    gradients, before = give_gradients(site, 0), parameters(site)
    update = Update(3, 2, None)
    received = (noise(2, 3), noise(4))
    assert correction.received(received) is received
    correction.correct(update)
    assert correction.rate(update) == 1.0
    correction.stepping(update)
    correction.stepped(update)
    assert all(torch.equal(p.grad, g) for p, g in zip(site.weights.trainable(), gradients, strict=True))
    assert torch.equal(parameters(site), before)
    assert not Correction.needs_forwarded
    assert (correction.vectors, correction.nbytes) == (0, 0)


def test_how_far_a_parameter_moved_since_its_batch_was_forwarded() -> None:
    site = make_site()
    site.versions.hold(0)
    then = [p.detach().clone() for p in site.weights.trainable()]
    step(site)
    step(site)
    update = Update(2, 2, site.versions.read(0))
    for p, old in zip(site.weights.trainable(), then, strict=True):
        assert torch.equal(update.moved(p), p.detach() - old)
        assert update.moved(p).any()
        assert not update.moved(p).requires_grad


def test_a_batch_forwarded_now_has_not_moved() -> None:
    site = make_site()
    update = Update(0, 0, site.versions.read(0))
    assert all(not update.moved(p).any() for p in site.weights.trainable())
