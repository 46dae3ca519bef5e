import weakref

import torch

from stalegrid.programs.schedules import stale
from stalegrid.stages.views.named import Kept
from stalegrid.stages.views.stashed import Stashed
from tests.sites import make_site, parameters, step


def test_it_sees_the_weights_of_every_version_in_flight() -> None:
    site = make_site()
    view = Stashed(site)
    history = []
    for batch in range(4):
        version, vector = view.forwarding(batch)
        assert version == batch
        assert vector is site.weights.flat
        assert view.seen(version) is site.weights.flat
        history.append(parameters(site))
        step(site, view)
    for version in range(4):
        assert torch.equal(view.seen(version), history[version])
        assert not torch.equal(view.seen(version), parameters(site))


def test_it_copies_no_version_that_nobody_needs() -> None:
    site = make_site()
    view = Stashed(site)
    step(site, view)
    view.forwarding(0)
    view.finished(1)
    step(site, view)
    assert site.versions.nbytes == 0


def test_it_drops_a_copy_with_the_last_batch_that_needs_it() -> None:
    site = make_site()
    view = Stashed(site)
    view.forwarding(0)
    view.forwarding(1)
    step(site, view)
    view.forwarding(2)
    step(site, view)
    kept = weakref.ref(view.seen(0))
    view.finished(0)
    assert kept() is not None
    view.finished(0)
    assert kept() is None
    assert view.seen(1) is not None


def test_it_keeps_a_copy_for_every_update_a_batch_may_wait() -> None:
    assert Stashed.kept(stale([4, 2, 0]), 0) == Kept(graphs=5, inputs=0, copies=4)
    assert Stashed.kept(stale([4, 3, 0], 2), 1) == Kept(graphs=4, inputs=0, copies=2)
    assert Stashed.kept(stale([4, 2, 0]), 2) == Kept(graphs=1, inputs=0, copies=0)
