"""What a view says a stage keeps at most, against a stage that runs its program."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import Grid
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale
from stalegrid.stages.recomputing import RecomputingStage
from stalegrid.stages.stage import Stage
from stalegrid.stages.views.named import VIEWS
from tests.sites import make_site, noise, step


def bytes_kept(name: str, schedule: Schedule, stage: int, updates: int) -> tuple[int, int, int]:
    """Run a stage alone; return its most bytes for batches and for copies, each, and at once."""
    view = VIEWS[name]
    program = Program(Grid(1, schedule.stages), schedule, updates, recompute=view.recomputes)
    site = make_site(schedule=schedule, stage=stage)
    kind = RecomputingStage if program.recomputes(stage) else Stage
    running = kind(site.weights.module, site.weights, view(site), first=False)
    batches = copies = both = 0
    for action in program.actions(site.unit):
        match action.kind:
            case Kind.FORWARD:
                running.forward(action.index, (noise(4, 3),))
            case Kind.RECOMPUTE:
                running.recompute(action.index)
            case Kind.BACKWARD:
                running.backward(action.index, (noise(4, 2),))
            case Kind.UPDATE:
                step(site, running.view)
        kept = site.versions.nbytes + running.view.nbytes
        batches, copies = max(batches, running.nbytes), max(copies, kept)
        both = max(both, running.nbytes + kept)
    assert running.nbytes == 0
    return batches, copies, both


INPUTS, OUTPUTS = 4 * 3 * 4, 4 * 2 * 4
"""Bytes of what a linear layer keeps of a batch of four."""
VECTOR = (16 + 16) * 4
"""Bytes of its weight and its bias, each padded to cache lines."""


def said(name: str, schedule: Schedule, stage: int) -> tuple[int, int]:
    kept = VIEWS[name].kept(schedule, stage)
    return kept.graphs * (INPUTS + OUTPUTS) + kept.inputs * INPUTS, kept.copies * VECTOR


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    micro = draw(st.integers(1, 3))
    ahead = sorted(draw(st.lists(st.integers(0, 5), min_size=2, max_size=3)), reverse=True)
    return draw(st.sampled_from([stale(ahead, micro), gpipe(len(ahead), micro), one_f_one_b(len(ahead), micro)]))


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "double-buffered"])
@settings(deadline=None, max_examples=15)
@given(schedule=schedules(), updates=st.integers(1, 14), data=st.data())
def test_no_stage_keeps_more_than_its_view_says(name: str, schedule: Schedule, updates: int, data: Any) -> None:
    stage = data.draw(st.integers(0, schedule.stages - 1))
    batches, copies = said(name, schedule, stage)
    found = bytes_kept(name, schedule, stage, updates)
    assert found[0] <= batches
    assert found[1] <= copies
    if updates * schedule.micro_batches > 2 * schedule.windows[stage]:
        assert found[:2] == (batches, copies)
        # The old weights that the corrected view keeps during an update are gone when the next batch comes.
        spared = min(INPUTS + OUTPUTS, VECTOR) if name == "corrected" and copies else 0
        assert found[2] == batches + copies - spared


@pytest.mark.parametrize(("windows", "micro_batches"), [((1,), 1), ((2, 2), 1), ((4, 3, 1), 3), ((3, 2, 1), 4)])
def test_no_stage_keeps_more_than_two_versions_if_double_buffered(windows: Sequence[int], micro_batches: int) -> None:
    schedule = Schedule(tuple(windows), micro_batches, delay=1)
    for stage in range(schedule.stages):
        batches, copies = said("double-buffered", schedule, stage)
        assert bytes_kept("double-buffered", schedule, stage, 6) == (batches, copies, batches + copies)
