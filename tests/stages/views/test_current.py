from stalegrid.programs.schedules import gpipe, stale
from stalegrid.stages.views.current import Current
from stalegrid.stages.views.named import Kept
from tests.sites import make_site, step


def test_it_sees_the_weights_of_now_at_forward_and_backward() -> None:
    site = make_site()
    view = Current(site)
    assert view.forwarding(0) == (0, site.weights.flat)
    step(site, view)
    assert view.forwarding(1) == (1, site.weights.flat)
    assert view.seen(0) is site.weights.flat
    view.finished(0)


def test_it_keeps_no_copy() -> None:
    site = make_site()
    view = Current(site)
    view.forwarding(0)
    step(site, view)
    assert site.versions.nbytes == view.nbytes == 0
    assert Current.kept(stale([4, 2, 0]), 0) == Kept(graphs=5, inputs=0, copies=0)
    assert Current.kept(gpipe(2, 4), 1) == Kept(graphs=4, inputs=0, copies=0)
