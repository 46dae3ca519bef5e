"""How the second forward is made is tested with the stage that makes it."""

import pytest

from stalegrid.programs.schedules import gpipe, stale
from stalegrid.stages.views.named import VIEWS, Kept
from stalegrid.stages.views.recomputed import Recomputed
from tests.sites import make_site, step


def test_it_sees_the_weights_of_now_and_keeps_no_copy() -> None:
    site = make_site()
    view = Recomputed(site)
    assert view.forwarding(0) == (0, site.weights.flat)
    step(site, view)
    assert view.seen(0) is site.weights.flat
    assert site.versions.nbytes == view.nbytes == 0


def test_it_keeps_one_graph_and_the_inputs_of_the_others() -> None:
    assert Recomputed.kept(stale([4, 2, 0]), 0) == Kept(graphs=1, inputs=4, copies=0)
    assert Recomputed.kept(stale([4, 2, 0]), 2) == Kept(graphs=1, inputs=0, copies=0)
    assert Recomputed.kept(gpipe(2, 4), 0) == Kept(graphs=1, inputs=3, copies=0)


@pytest.mark.parametrize("name", VIEWS)
def test_it_is_the_only_view_that_makes_graphs_late(name: str) -> None:
    assert VIEWS[name].recomputes is (name == "recomputed")
