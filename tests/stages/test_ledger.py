import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.errors import StalenessExceeded
from stalegrid.observe.records import Loss, Tally
from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale
from stalegrid.stages.ledger import Ledger
from stalegrid.stages.site import Site
from stalegrid.stages.weights import Versions, Weights
from tests.sites import linear, make_site, parameters, step

UNIT = Unit(0, 0)


class Run:
    """A unit's notes, with the weights of every version on the side.

    Args:
        bound: that no gradient may exceed.
        measure_gap: whether to measure the gap.
        hold_all: whether to hold the weights of every forward.
        micro_batches: batches of an update.
    """

    def __init__(
        self, bound: int = 3, measure_gap: bool = True, hold_all: bool = False, micro_batches: int = 1
    ) -> None:
        self.site: Site = make_site(schedule=stale([bound * micro_batches], micro_batches))
        self.tally = Tally(UNIT, bound)
        self.ledger = Ledger(self.site, self.tally, measure_gap=measure_gap, hold_all=hold_all)
        self.history = [parameters(self.site)]
        self.copies: list[int] = []
        self.gaps: list[float] = []
        moved = self.tally.moved

        def note(gap: torch.Tensor) -> None:
            self.gaps.append(float(gap))
            moved(gap)

        self.tally.moved = note  # type: ignore[method-assign]

    def forward(self, batch: int, loss: Loss | None = None) -> None:
        self.ledger.forwarded(batch, self.site.weights.version, loss)
        self._count()

    def update(self, batches: Sequence[int]) -> None:
        self.ledger.updating(list(batches))
        step(self.site)
        self.history.append(parameters(self.site))
        self._count()

    def pipeline(self, schedule: Schedule, stage: int, updates: int) -> None:
        """Run the actions of a stage."""
        used: list[int] = []
        for action in Program(Grid(1, schedule.stages), schedule, updates).actions(Unit(0, stage)):
            if action.kind is Kind.FORWARD:
                self.forward(action.index)
            elif action.kind is Kind.BACKWARD:
                used.append(action.index)
            else:
                self.update(used)
                used = []

    def gap(self, version: int, forwarded: int) -> float:
        """Return the norm by hand, over the parameters themselves.

        The same to about 1e-12, not to the bit: the sum runs over parameters and not over the vector with its padding.
        """
        now, then = self.history[version], self.history[forwarded]
        return float(torch.linalg.vector_norm((now - then).double()))

    def _count(self) -> None:
        vector = self.site.weights.trained * self.site.weights.flat.itemsize
        assert self.site.versions.nbytes % vector == 0
        self.copies.append(self.site.versions.nbytes // vector)


def test_every_batch_is_counted_by_its_staleness() -> None:
    run = Run(bound=2)
    for b in range(3):
        run.forward(b)
    run.update([0])
    run.update([1])
    run.update([2])
    run.forward(3)
    run.update([3])
    report = run.tally.close(0.1)
    assert report.histogram == [2, 1, 1]
    assert (report.forwarded, report.applied) == (3, 3)


def test_what_trains_nothing_is_not_stale_and_its_program_is_held_to_its_bound_all_the_same() -> None:
    usual = make_site(staleness=[2, 0])
    weights = Weights(linear().requires_grad_(False))
    site = replace(usual, weights=weights, versions=Versions(weights))
    tally = Tally(UNIT, 2)
    ledger = Ledger(site, tally, measure_gap=True, hold_all=True)
    for b in range(4):
        ledger.forwarded(b, 0, None)
    for b in range(3):
        ledger.updating([b])
        site.versions.overwriting()
        weights.version += 1
    with pytest.raises(StalenessExceeded, match="staleness: 3, bound: 2"):
        ledger.updating([3])
    report = tally.close(0.1)
    assert report.histogram == [3, 0, 0]
    assert report.staleness()["gap"] == 0


def test_an_update_of_several_batches_counts_each() -> None:
    run = Run(bound=1)
    for b in range(3):
        run.forward(b)
    run.update([0, 1])
    run.forward(3)
    assert run.ledger.oldest([2, 3]) == 0
    assert run.ledger.oldest([3]) == 1
    run.update([2, 3])
    report = run.tally.close(0.1)
    assert report.histogram == [3, 1]
    assert (report.forwarded, report.applied) == (1, 1), "stamps are those of the last batch"


def test_the_gap_is_the_norm_of_how_far_the_weights_moved() -> None:
    run = Run()
    for b in range(3):
        run.forward(b)
    run.update([0])
    assert run.tally.close(0.1).gap_sum == 0.0, "the first batch is not late"
    run.forward(3)  # measured next, because no other is
    run.update([1])
    run.update([2])
    report = run.tally.close(0.1)
    assert (report.gaps, report.gap_sum) == (0, 0.0)
    run.update([3])
    report = run.tally.close(0.1)
    assert report.gaps == 1
    assert report.gap_sum == report.gap_max == pytest.approx(run.gap(3, 1), rel=1e-12)
    assert report.gap_sum > 0.1


def test_running_statistics_do_not_count() -> None:
    run = Run()
    run.forward(0)
    run.site.weights.flat[run.site.weights.trained :] += 5.0
    run.update([0])
    assert run.tally.close(0.1).gap_sum == 0.0


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    micro = draw(st.integers(1, 3))
    ahead = sorted(draw(st.lists(st.integers(0, 6), min_size=1, max_size=3)), reverse=True)
    return draw(st.sampled_from([stale(ahead, micro), gpipe(len(ahead), micro), one_f_one_b(len(ahead), micro)]))


@settings(deadline=None, max_examples=40)
@given(schedule=schedules(), updates=st.integers(1, 12), data=st.data())
def test_one_batch_at_a_time_is_measured_and_costs_one_copy(schedule: Schedule, updates: int, data: Any) -> None:
    stage = data.draw(st.integers(0, schedule.stages - 1))
    bound, micro = schedule.bound(stage), schedule.micro_batches
    run = Run(bound, micro_batches=micro)
    run.pipeline(schedule, stage, updates)
    report = run.tally.close(0.1)
    expected: list[float] = []
    sample = None
    for action in Program(Grid(1, schedule.stages), schedule, updates).actions(Unit(0, stage)):
        turn = action.index // micro >= bound and action.index % micro == len(expected) % micro
        if action.kind is Kind.FORWARD and sample is None and turn:
            sample = action.index
        if action.kind is Kind.UPDATE and sample is not None and sample // micro == action.index:
            expected.append(run.gap(action.index, schedule.version_of(stage, sample)))
            sample = None
    assert max(run.copies) <= min(1, bound)
    if bound:
        assert report.gaps == len(expected)
        assert report.gap_sum == pytest.approx(sum(expected), rel=1e-12)
        assert report.gap_max == pytest.approx(max(expected, default=0.0), rel=1e-12)
    else:
        assert report.gaps == 0
    assert run.copies[-1] == 0


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_measuring_late_batches_costs_exactly_one_copy(ahead: int) -> None:
    run = Run(ahead)
    run.pipeline(stale([ahead]), 0, 3 * ahead + 4)
    assert max(run.copies) == 1
    assert run.tally.close(0.1).gap_max > 0.1


@pytest.mark.parametrize(("ahead", "micro_batches"), [(1, 2), (3, 4), (2, 5)])
def test_each_batch_of_an_update_is_measured_in_turn_the_late_ones_too(ahead: int, micro_batches: int) -> None:
    run = Run(bound=1, micro_batches=micro_batches)
    run.pipeline(stale([ahead], micro_batches), 0, 24)
    report = run.tally.close(0.1)
    assert report.histogram[1] == 23 * ahead
    measured = [gap for gap in run.gaps if gap > 0.1]
    assert len(measured) / len(run.gaps) == pytest.approx(ahead / micro_batches, abs=0.2)
    assert report.gap_max == max(measured)


@settings(deadline=None, max_examples=40)
@given(schedule=schedules(), updates=st.integers(1, 12), data=st.data())
def test_the_histogram_is_what_the_schedule_says(schedule: Schedule, updates: int, data: Any) -> None:
    stage = data.draw(st.integers(0, schedule.stages - 1))
    run = Run(schedule.bound(stage))
    run.pipeline(schedule, stage, updates)
    expected = [0.0] * (schedule.bound(stage) + 1)
    for batch in range(updates * schedule.micro_batches):
        expected[batch // schedule.micro_batches - schedule.version_of(stage, batch)] += 1
    report = run.tally.close(0.1)
    assert report.histogram == expected
    assert report.applied == updates - 1
    assert report.forwarded == schedule.version_of(stage, updates * schedule.micro_batches - 1)


def test_without_staleness_nothing_is_measured() -> None:
    run = Run(bound=0)
    for n in range(3):
        run.forward(n)
        run.update([n])
    assert run.tally.close(0.1).gaps == 0
    assert set(run.copies) == {0}


def test_unless_asked_nothing_is_measured_and_nothing_held() -> None:
    run = Run(measure_gap=False)
    run.pipeline(stale([3]), 0, 8)
    assert run.tally.close(0.1).gaps == 0
    assert set(run.copies) == {0}


@pytest.mark.parametrize("measure_gap", [False, True])
def test_corrections_find_the_weights_of_every_forward(measure_gap: bool) -> None:
    run = Run(measure_gap=measure_gap, hold_all=True)
    for b in range(3):
        run.forward(b)
        run.update([])
    for b in range(3):
        forwarded = run.ledger.oldest([b])
        assert forwarded == b
        assert torch.equal(run.site.versions.read(forwarded), run.history[b])
    assert run.copies[-1] == 3
    run.ledger.updating([1])
    assert run.copies[0] == 0
    with pytest.raises(KeyError):
        run.site.versions.read(1)
    assert torch.equal(run.site.versions.read(0), run.history[0])


def test_holding_all_costs_a_copy_for_every_update_that_a_batch_may_wait() -> None:
    for ahead, micro in ((3, 1), (4, 2), (0, 1)):
        schedule = stale([ahead], micro)
        run = Run(schedule.bound(0), hold_all=True)
        run.pipeline(schedule, 0, 12)
        assert max(run.copies) == schedule.bound(0)
        assert run.copies[-1] == 0


def test_a_gradient_staler_than_declared_is_an_error_with_its_place() -> None:
    run = Run(bound=1)
    for b in range(3):
        run.forward(b)
    run.update([0])
    run.update([1])
    with pytest.raises(StalenessExceeded, match=r"\(unit: \(0,0\), batch: 2, version: 2, staleness: 2, bound: 1\)"):
        run.update([2])


def test_a_loss_reaches_the_tally_with_its_update() -> None:
    run = Run()
    for b in range(2):
        run.forward(b, Loss(4, torch.tensor(float(b + 1)), torch.tensor(b + 2)))
    run.update([0])
    report = run.tally.close(0.1)
    assert (report.losses, report.samples, report.loss_sum, report.correct) == (1, 4, 1.0, 2.0)
    run.update([1])
    report = run.tally.close(0.1)
    assert (report.losses, report.samples, report.loss_sum, report.correct) == (1, 4, 2.0, 3.0)


def test_a_loss_is_forgotten_when_it_has_been_read() -> None:
    run = Run()
    value = torch.tensor(1.0)
    run.forward(0, Loss(4, value, torch.tensor(2)))
    kept = weakref.ref(value)
    del value
    run.update([0])
    assert kept() is not None
    run.tally.close(0.1)
    assert kept() is None


def test_a_batch_is_used_once() -> None:
    run = Run()
    run.forward(0)
    run.update([0])
    with pytest.raises(KeyError):
        run.update([0])
