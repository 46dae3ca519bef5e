import pytest
import torch

from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import Grid
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, gpipe, stale
from stalegrid.stages.views.double_buffered import DoubleBuffered
from stalegrid.stages.views.named import Kept
from tests.sites import make_site, parameters, step


def doubled(windows: tuple[int, ...], micro_batches: int) -> Schedule:
    return Schedule(windows, micro_batches, delay=1)


@pytest.mark.parametrize(
    ("windows", "micro_batches"), [((1,), 1), ((2, 1), 1), ((3, 2, 1), 2), ((3, 2, 1), 5), ((4, 4), 3)]
)
def test_every_batch_sees_the_version_before_the_one_that_its_update_changes(
    windows: tuple[int, ...], micro_batches: int
) -> None:
    for stage in range(len(windows)):
        site = make_site(schedule=doubled(windows, micro_batches), stage=stage)
        view = DoubleBuffered(site)
        vector = site.weights.trained * site.weights.flat.itemsize
        program = Program(Grid(1, len(windows)), site.schedule, 6)
        history, used, most = [parameters(site)], {}, 0
        for action in program.actions(site.unit):
            if action.kind is Kind.FORWARD:
                version, read = view.forwarding(action.index)
                assert version == max(0, action.index // micro_batches - 1)
                assert torch.equal(read[: site.weights.trained], history[version])
                used[action.index] = version
            elif action.kind is Kind.BACKWARD:
                version = used.pop(action.index)
                assert torch.equal(view.seen(version)[: site.weights.trained], history[version])
                view.finished(version)
            else:
                step(site, view)
                history.append(parameters(site))
            most = max(most, site.versions.nbytes)
        assert most == vector


def test_it_keeps_one_copy() -> None:
    assert DoubleBuffered.kept(doubled((3, 2, 1), 2), 0) == Kept(graphs=3, inputs=0, copies=1)


def test_every_update_is_late_by_one_however_deep_the_pipeline() -> None:
    assert [doubled((4, 2, 1), 4).bound(k) for k in range(3)] == [1, 1, 1]


def test_more_batches_ahead_than_micro_batches_are_refused() -> None:
    DoubleBuffered.check(doubled((4, 2, 1), 3))
    with pytest.raises(ConfigError, match=r"micro_batches: 2, staleness of stage 0: 3\); raise micro_batches to 3"):
        DoubleBuffered.check(doubled((4, 2, 1), 2))


def test_a_flush_is_refused() -> None:
    with pytest.raises(ConfigError, match="which a flush forbids; take stashed"):
        DoubleBuffered.check(gpipe(2, 4))


def test_it_says_its_delay_to_the_schedule() -> None:
    assert DoubleBuffered.delay == 1
    assert stale([2, 0]).delay == 0
