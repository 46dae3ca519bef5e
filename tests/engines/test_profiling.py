import math
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from stalegrid.config import Settings
from stalegrid.engines import profiling as measured
from stalegrid.engines.distributed.handling import measure_handling
from stalegrid.errors import ConfigError
from stalegrid.partition.cutting import finest, partition
from stalegrid.plans.task import Task
from stalegrid.timing.costs import Cost, CostTable
from tests import tied
from tests.cases import CUTS, changed, make_settings, make_task
from tests.generators import global_states
from tests.tied import sentences, writer

BATCH = 8


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3))


def mlp_task(**changes: Any) -> Task:
    data = TensorDataset(torch.randn(40, 5), torch.randint(0, 3, (40,)))
    usual: dict[str, Any] = {
        "model": mlp(),
        "data": data,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    }
    return Task(**(usual | changes))


def asked(**changes: Any) -> Any:
    return make_settings(cuts=["2", "4"], **({"batch_size": BATCH} | changes))


def profile(task: Task, settings: Settings, parts: int = measured.PARTS, copies: int = 1) -> CostTable:
    return measured.profile(task, settings, settings.engine, parts, copies)


@pytest.fixture(scope="module")
def table() -> CostTable:
    return profile(mlp_task(), asked())


def padded(*numels: int, size: int = 4) -> int:
    """Return the bytes of parameters of which each starts on a cache line."""
    return sum(math.ceil(n * size / 64) * 64 for n in numels)


def test_parts_are_named_as_they_may_be_cut(table: CostTable) -> None:
    assert [part.name for part in table.parts] == ["input", "2", "4"]
    assert table.batch_size == BATCH
    assert [stage.name for stage in table.cut(2, ["4"])] == ["input", "4"]


def test_bytes_of_messages_and_parameters_are_exact(table: CostTable) -> None:
    assert [part.input for part in table.parts] == [0, BATCH * 16 * 4, BATCH * 24 * 4]
    assert [part.output for part in table.parts] == [BATCH * 16 * 4, BATCH * 24 * 4, 0]
    assert [part.targets for part in table.parts] == [0, 0, BATCH * 8]
    assert [part.parameters for part in table.parts] == [padded(80, 16), padded(384, 24), padded(72, 3)]


def test_a_graph_holds_at_least_what_a_layers_backward_reads(table: CostTable) -> None:
    # What a layer is handed; ReLU saves what it returns, which is handed on.
    assert [part.graph >= BATCH * n * 4 for part, n in zip(table.parts, (16, 24, 24), strict=True)] == [True] * 3
    assert all(part.graph < 16 * BATCH * 24 * 4 for part in table.parts)


def test_whole_batches_are_measured_whatever_is_left_of_an_epoch() -> None:
    """Of 41 samples in fourths of a batch one is left, over which no mean can be taken."""
    model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3))
    data = TensorDataset(torch.randn(41, 5), torch.randint(0, 3, (41,)))
    task = mlp_task(model=model, data=data)
    found = profile(task, asked(drop_last=False, batch_size=19))
    assert (found.batch_size, len(found.parts)) == (19, 3)


def test_parts_below_all_that_is_trained_are_told_as_frozen_and_hold_no_graph() -> None:
    model = mlp()
    model[:3].requires_grad_(False)
    found = profile(mlp_task(model=model), asked())
    assert [part.frozen for part in found.parts] == [True, True, False]
    assert [part.graph > 0 for part in found.parts] == [False, False, True]
    assert [part.parameters for part in found.parts[:2]] == [0, 0]


def test_what_parts_share_is_told_by_each_with_its_bytes() -> None:
    task = mlp_task(model=writer(thrice=True), data=sentences())
    found = profile(task, make_settings(cuts=tied.CUTS[4], batch_size=BATCH))
    matrix = {"embedding.weight": tied.WORDS * tied.WIDTH * 4}
    assert [part.tied for part in found.parts] == [matrix, {}, matrix, matrix]


def test_times_are_measured(table: CostTable) -> None:
    for part in table.parts:
        assert min(part.forward, part.backward, part.update, part.mix) > 0
        assert part.fixed >= 0
        assert part.recompute is None
    assert table.handling > 0


def test_a_written_profile_reads_back_equal(table: CostTable, tmp_path: Path) -> None:
    table.write(tmp_path / "costs.yaml")
    assert CostTable.read(tmp_path / "costs.yaml") == table


def test_a_model_is_measured_in_as_many_parts_as_it_has_and_at_most_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "WARM_UP", 1)
    monkeypatch.setattr(measured, "REPEATS", 1)
    monkeypatch.setattr(measured, "measure_handling", lambda: 0.25)
    settings = changed(asked(), cuts=None)
    whole = profile(mlp_task(), settings)
    assert len(whole.parts) == 3
    assert whole.handling == 0.25
    (one,) = profile(mlp_task(), settings, 1).parts
    assert (one.name, one.input, one.output) == ("input", 0, 0)
    assert one.parameters == sum(part.parameters for part in whole.parts)


class Noisy(nn.Module):
    """Draws from every global generator, where it is traced too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + random.random() + float(np.random.rand()) + torch.rand(1)


def test_the_users_generators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WARM_UP", 1), ("REPEATS", 1), ("measure_handling", lambda: 0.0)):
        monkeypatch.setattr(measured, name, value)
    model = nn.Sequential(nn.Linear(5, 16), nn.Dropout(0.5), Noisy(), nn.Linear(16, 3))
    task = mlp_task(model=model)
    before = global_states()
    profile(task, changed(asked(), cuts=None))
    assert global_states() == before


def test_schedules_corrections_and_tests_of_the_task_play_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "measure_handling", lambda: 0.0)

    def never(*args: object) -> Any:
        raise AssertionError

    # The schedule of the small task ends after 8 updates.
    task = make_task(test=TensorDataset(torch.zeros(0), torch.zeros(0)))
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    found = profile(task, make_settings(cuts=CUTS[3], dtype="float64", corrections=[never]))
    assert [part.name for part in found.parts] == ["input", *CUTS[3]]
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.model.state_dict().items())
    # conv2's part: 4x4x3x3 weights, 4 biases, and batch-norm's weight, bias and two averages, in double precision.
    assert found.parts[1].parameters == padded(144, 4, 4, 4, 4, 4, size=8)
    # The residual crosses both cuts.
    assert [part.output for part in found.parts] == [4 * 144 * 8, 2 * 4 * 144 * 8, 0]


def test_a_single_sample_says_nothing_of_what_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "measure_handling", lambda: 0.0)
    found = profile(mlp_task(), asked(batch_size=1))
    assert [part.fixed for part in found.parts] == [0.0] * 3
    assert found.batch_size == 1


@pytest.mark.parametrize("parts", [0, -1])
def test_a_model_is_measured_in_at_least_one_part(parts: int) -> None:
    with pytest.raises(ConfigError, match=rf"at least one part \(parts: {parts}\)"):
        profile(mlp_task(), asked(), parts)


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="'nowhere'"):
        profile(mlp_task(), changed(asked(), cuts=["nowhere"]))
    with pytest.raises(ConfigError, match="1000 samples"):
        profile(mlp_task(), asked(batch_size=1000))


def test_a_batch_that_can_be_trained_can_be_measured() -> None:
    model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))
    assert profile(mlp_task(model=model), changed(asked(), cuts=["2"], batch_size=4))


@pytest.mark.parametrize(
    ("whole", "some", "expected"),
    [
        ((8.0, 16.0), (2.75, 4.75), 1.0),  # 1 + 7 r and 1 + 15 r, r = 1/4
        ((8.0, 16.0), (2.0, 4.0), 0.0),
        ((8.0, 16.0), (1.0, 1.0), 0.0),  # never less than nothing
        ((8.0, 16.0), (8.0, 16.0), 12.0),  # nothing grows: the mean of both
    ],
)
def test_what_is_fixed_follows_from_two_sizes_of_batch(
    whole: tuple[float, float], some: tuple[float, float], expected: float
) -> None:
    costs = [Cost(forward=forward, backward=backward) for forward, backward in (whole, some)]
    assert measured._fixed(*costs, 0.25) == pytest.approx(expected)


def test_handling_is_a_time_a_megabyte() -> None:
    assert 0 < measure_handling() < math.inf


def test_a_model_is_cut_as_finely_as_its_parameters_go() -> None:
    x = (torch.randn(BATCH, 5),)
    assert finest(mlp(), x, 1) == ()
    assert finest(nn.Linear(5, 3), x, 16) == ()
    for most in (2, 3, 16):
        names = finest(mlp(), x, most)
        assert len(names) == min(most, 3) - 1
        assert partition(mlp(), x, len(names) + 1, names).names == names


def test_what_shares_parameters_is_one_part_unless_its_uses_may_lie_apart() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(torch.relu(self.first(x))))

    model = Tied()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = finest(model, (torch.randn(BATCH, 5),), 16, apart=False)
    assert names == ("last",)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_several_processes_measure_the_same_parts_at_once(table: CostTable) -> None:
    found = profile(mlp_task(), asked(), copies=2)
    assert [part.name for part in found.parts] == [part.name for part in table.parts]
    for at_once, alone in zip(found.parts, table.parts, strict=True):
        assert (at_once.output, at_once.parameters, at_once.graph) == (alone.output, alone.parameters, alone.graph)
        assert at_once.forward > 0


def test_no_process_measures_nothing() -> None:
    with pytest.raises(ConfigError, match=r"at least one process \(copies: 0\)"):
        profile(mlp_task(), asked(), copies=0)
