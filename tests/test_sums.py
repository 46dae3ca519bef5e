"""Losses that are a sum and what it counts: updates are those of all that counts, whatever is in which batch."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from stalegrid.consensus.mixings import GradientMean
from stalegrid.data import Batches
from stalegrid.errors import ConfigError, TrainingError
from stalegrid.plans.task import Task
from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import Unit
from stalegrid.studies.loops import OWN
from stalegrid.studies.verifying import verify
from tests.cases import (
    build,
    compare,
    make_plan,
    make_settings,
    make_task,
    plan_of,
    record_simulator,
    run_simulator,
)
from tests.engines.distributed.matrix import task_of
from tests.sites import noise

SIZE, UPDATES, TOKENS, IGNORED = 8, 4, 6, -100
CUTS: dict[int, list[str]] = {1: [], 2: ["2"], 3: ["2", "4"]}


def tokens(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the tokens that count, and their number."""
    total = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORED)
    return total, (targets != IGNORED).sum()


def mean(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))


def sequences(samples: int = 96) -> TensorDataset:
    """Sequences of which from one token to all count."""
    targets = torch.arange(samples * TOKENS).view(samples, TOKENS) % 4
    lengths = 1 + torch.arange(samples) * 5 % TOKENS
    return TensorDataset(
        noise(samples, TOKENS, 5), targets.masked_fill(torch.arange(TOKENS) >= lengths.view(-1, 1), IGNORED)
    )


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.25, momentum=0.9)


def task_with(loss: Any = tokens, **changes: Any) -> Task:
    usual = {"model": build(model), "data": sequences(), "loss": loss, "optimizer": sgd, "scheduler": None}
    return make_task(**(usual | changes))


def settings_of(groups: int = 1, stages: int = 1, **changes: Any) -> Any:
    usual = {"cuts": CUTS[stages], "batch_size": SIZE, "updates": UPDATES}
    return make_settings(groups, stages, **(usual | changes))


def served(method: str, **changes: Any) -> Any:
    usual = {"batch_size": SIZE, "updates": UPDATES, "engine": "simulator", "method": method}
    return make_settings(groups=None, stages=None, cuts=None, **(usual | changes))


def plain(
    task: Task, settings: Any, groups: int = 1, micro: int = 1, late: Callable[[str], int] = lambda name: 0
) -> tuple[dict[str, Tensor], list[float]]:
    """Train the whole model by the definition; ``late`` says how many updates old a parameter is read.

    The gradients of a group's batches are added up, then those of the groups, and divided once.
    """
    net = build(model).to(task.data[0][0].dtype)  # type: ignore[index]
    size, seed = settings.training.batch_size, settings.training.seed
    batches = Batches(task.data, groups=groups, batch_size=size, micro_batches=micro, seed=seed)
    own, optimizer, past, losses = dict(net.named_parameters()), sgd(net.parameters()), [], []
    for n in range(UPDATES):
        past.append({name: p.detach().clone().requires_grad_() for name, p in own.items()})
        read = {name: past[max(0, n - late(name))][name] for name in own}
        sums = {name: torch.zeros_like(p) for name, p in own.items()}
        totals, counts = 0.0, 0
        for s in range(groups):
            for b in range(n * micro, (n + 1) * micro):
                outputs = functional_call(net, read, batches.inputs(s, b))
                total, count = tokens(outputs, batches.targets(s, b))
                total.backward()
                totals, counts = totals + total.item(), counts + int(count)
            for name, leaf in read.items():
                assert leaf.grad is not None
                sums[name] += leaf.grad
                leaf.grad = None
        for name, p in own.items():
            p.grad = sums[name] / counts
        optimizer.step()
        losses.append(totals / counts)
    return dict(net.state_dict()), losses


def hold(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert not [name for name, value in expected.items() if not torch.equal(value, found[name])]


def near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Compare to rounding: the same terms in float64, but one sum over a large batch adds them in another order."""
    return all(torch.allclose(value, expected[name], rtol=1e-11, atol=1e-13) for name, value in found.items())


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("micro", [1, 2, 4])
@pytest.mark.parametrize("method", ["gpipe", "1f1b"])
def test_micro_batches_are_added_up_and_divided_once(method: str, micro: int, stages: int) -> None:
    task, settings = task_with(), settings_of(1, stages, method=method, micro_batches=micro)
    recorder = record_simulator(task, settings)
    expected, losses = plain(task, settings, micro=micro)
    hold(recorder.means[-1], expected)
    assert [record["loss"] for record in recorder.records] == losses


@pytest.mark.parametrize(("groups", "stages", "micro"), [(2, 1, 1), (3, 1, 1), (2, 2, 2), (3, 3, 1)])
def test_so_are_groups_that_average_gradients(groups: int, stages: int, micro: int) -> None:
    method = "data-parallel" if stages == 1 else "gpipe"
    task, settings = task_with(), settings_of(groups, stages, method=method, micro_batches=micro)
    recorder = record_simulator(task, settings)
    expected, losses = plain(task, settings, groups, micro)
    hold(recorder.means[-1], expected)
    # Totals of groups, not of batches, are added up: their sum in float64 is that of another order.
    assert [record["loss"] for record in recorder.records] == pytest.approx(losses, rel=1e-12)


@pytest.mark.parametrize("learners", [1, 3])
def test_so_are_gradients_that_servers_gather(learners: int) -> None:
    task, settings = task_with(), served("hardsync", learners=learners, servers=2)
    recorder = record_simulator(task, settings, plan_of(task, settings))  # type: ignore[arg-type]
    expected, losses = plain(task, settings, learners)
    hold(recorder.means[-1], expected)
    assert [record["loss"] for record in recorder.records] == pytest.approx(losses, rel=1e-12)


@pytest.mark.parametrize(("loss", "exact"), [(tokens, True), (mean, False)])
def test_an_update_is_that_of_one_large_batch_which_a_mean_of_means_is_not(loss: Any, exact: bool) -> None:
    x, y = sequences().tensors
    task = task_with(loss, data=TensorDataset(x.double(), y), model=build(model).double())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that means are not those of all targets, where the loss is one
        whole = run_simulator(task, settings_of(1, 1, method="sgd", batch_size=24)).mean
        parts = [
            run_simulator(task, settings_of(1, 2, method="gpipe", micro_batches=6, batch_size=24)).mean,
            run_simulator(task, settings_of(3, 1, method="data-parallel")).mean,
            run_simulator(task, settings_of(3, 2, method="1f1b", micro_batches=2)).mean,
        ]
        learners = served("hardsync", learners=3)
        parts.append(record_simulator(task, learners, plan_of(task, learners)).means[-1])  # type: ignore[arg-type]
    assert [near(found, whole) for found in parts] == [exact] * 4


@pytest.mark.parametrize("stages", [2, 3])
def test_staleness_is_what_it_is_with_a_mean(stages: int) -> None:
    task, settings = task_with(), settings_of(1, stages, method="pipedream")
    bounds = [int(name) for name in CUTS[stages]]
    expected, _ = plain(task, settings, late=lambda name: sum(int(name.split(".")[0]) < bound for bound in bounds))
    hold(run_simulator(task, settings).mean, expected)


def test_groups_that_average_parameters_each_divide_by_what_they_count() -> None:
    task = task_with()
    both = run_simulator(task, settings_of(2, 2, method="pham-ahn", staleness=[0, 0], mixing="none"))
    for s in range(2):
        batches = Batches(task.data, groups=2, batch_size=SIZE, seed=3)
        net = build(model)
        optimizer = sgd(net.parameters())
        for n in range(UPDATES):
            total, count = tokens(net(*batches.inputs(s, n)), batches.targets(s, n))
            total.backward()
            for p in net.parameters():
                assert p.grad is not None
                p.grad /= count
            optimizer.step()
            optimizer.zero_grad()
        hold({name: value for (group, name), value in both.parameters.items() if group == s}, dict(net.state_dict()))


# With as many samples in every batch, a power of two, dividing late is exact: every bit is that of the mean.


def samples(scores: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    return F.cross_entropy(scores, targets, reduction="sum"), len(targets)


EVEN: dict[str, dict[str, Any]] = {
    **{f"1x3 {method}": {"groups": 1, "stages": 3, "method": method} for method in OWN if method != "adl"},
    "2x2 lagging": {"groups": 2, "stages": 2, "lag": 1, "momentum": True},
    "2x2 all-reduce": {"groups": 2, "stages": 2, "method": "gpipe", "micro_batches": 2},
    "corrected": {"groups": 1, "stages": 2, "corrections": ["dc-asgd", "clip=0.5", "shrink=0.5"]},
    "micro-batches late": {"groups": 2, "stages": 3, "micro_batches": 4, "batch_size": 8},
}


@pytest.mark.parametrize("name", EVEN)
def test_where_all_batches_count_alike_it_is_the_mean_to_the_bit(name: str) -> None:
    settings = make_settings(**EVEN[name])
    one, other = (replace(task_of(settings), loss=loss) for loss in (nn.CrossEntropyLoss(), samples))
    compare(run_simulator(one, settings), run_simulator(other, settings))


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "hardsync", "learners": 4},
        {"method": "softsync", "learners": 4, "softsync": 2, "rule": "inverse"},
        {"method": "asgd", "learners": 3, "rule": "dc", "clip": 0.5},
    ],
)
def test_so_it_is_with_servers(changes: dict[str, Any]) -> None:
    settings = make_settings(groups=None, stages=None, cuts=None, engine="simulator", **changes)
    found = []
    for loss in (nn.CrossEntropyLoss(), samples):
        task = make_task(loss=loss)
        recorder = record_simulator(task, settings, plan_of(task, settings))  # type: ignore[arg-type]
        found.append((recorder.means[-1], [record["loss"] for record in recorder.records]))
    hold(*(means for means, _ in found))
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize(
    "settings",
    [
        settings_of(1, 3, method="1f1b", micro_batches=2, processes=3),
        settings_of(2, 2, method="gpipe", micro_batches=2, processes=4),
        settings_of(2, 2, lag=1, processes=2),
        settings_of(1, 3, view="recomputed", processes=3),
        served("softsync", learners=3, servers=2, engine="processes"),
    ],
)
def test_processes_compute_what_the_simulator_does(settings: Any) -> None:
    found = verify(task_with(), settings)
    assert [difference.name for difference in found] == ["processes"], "the loops of the papers take means"
    assert all(difference.equal for difference in found), found


def test_so_they_do_below_a_frozen_stage_and_with_groups() -> None:
    frozen = build(model)
    frozen[:2].requires_grad_(False)  # type: ignore[index]
    settings = settings_of(2, 3, method="gpipe", micro_batches=2, processes=2)
    found = verify(task_with(model=frozen), settings)
    assert all(difference.equal for difference in found), found


def test_the_test_loss_is_the_sum_over_all_slices_by_what_they_count() -> None:
    test = sequences(200)  # in two slices, of 125 and 75
    recorder = record_simulator(task_with(test=test), settings_of(1, 2))
    net = build(model)
    net.load_state_dict(recorder.means[-1])
    with torch.no_grad():
        parts = [tokens(net(x), y) for x, y in zip(*(t.split(125) for t in test.tensors), strict=True)]
    expected = sum(float(total) for total, _ in parts) / sum(int(count) for _, count in parts)
    assert recorder.evaluations[-1]["test_loss"] == expected


def test_what_counts_travels_with_the_gradients_and_only_then() -> None:
    down, part = Edge("gradient", Unit(0, 1), Unit(0, 0)), Edge("gradient-part", Unit(0, 0), Unit(1, 0))
    settings = settings_of(2, 2, method="gpipe", micro_batches=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (make_plan(task_with(loss), settings) for loss in (mean, tokens))
    for edge in (down, part):
        assert other.layout(edge)[:-1] == one.layout(edge)
        assert (other.layout(edge)[-1].shape, other.layout(edge)[-1].dtype) == ((1,), torch.float64)


class Criterion(nn.CrossEntropyLoss):
    """Says that it ignores targets, and that it is a sum."""

    def forward(self, input: Tensor, target: Tensor) -> Any:
        return super().forward(input.flatten(0, 1), target.flatten()), (target != self.ignore_index).sum()


@pytest.mark.filterwarnings("error")
def test_nobody_is_told_that_means_are_not_those_of_all_targets() -> None:
    make_plan(
        task_with(Criterion(reduction="sum"), test=sequences()), settings_of(2, 2, method="gpipe", micro_batches=2)
    )


def test_a_batch_of_which_nothing_counts_adds_nothing() -> None:
    x, y = sequences().tensors
    order = Batches(TensorDataset(x, y), groups=1, batch_size=SIZE, micro_batches=4, seed=3).indices(0, 1)
    data = TensorDataset(x, y.index_fill(0, order, IGNORED))
    task, settings = task_with(data=data), settings_of(1, 2, method="gpipe", micro_batches=4)
    hold(run_simulator(task, settings).mean, plain(task, settings, micro=4)[0])


@pytest.mark.parametrize("changes", [{"method": "gpipe", "reduction": "sum"}, {"method": "adl"}], ids=str)
def test_sums_of_micro_batches_are_refused_where_a_count_divides_them(changes: dict[str, Any]) -> None:
    settings = settings_of(1, 2, micro_batches=2, **changes)
    with pytest.raises(ConfigError, match=r"a sum and a count.*\(reduction: sum\); take --method.reduction mean"):
        make_plan(task_with(), settings)
    hold(
        run_simulator(task_with(), settings_of(1, 2, method="gpipe", micro_batches=2, reduction="mean")).mean,
        run_simulator(task_with(), settings_of(1, 2, method="gpipe", micro_batches=2)).mean,
    )


@pytest.mark.parametrize(
    "settings",
    [settings_of(1, 2, method="gpipe", micro_batches=2), settings_of(2, 1), served("hardsync", learners=2)],
)
def test_an_update_of_which_nothing_counts_is_told(settings: Any) -> None:
    class Later:
        calls = 0

        def __call__(self, scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            self.calls += 1
            total, count = tokens(scores, targets)
            return total, count * (self.calls < 3)

    task = task_with(Later())
    with pytest.raises(TrainingError, match="nothing is counted in the loss of an update"):
        record_simulator(task, settings, plan_of(task, settings))  # type: ignore[arg-type]


def test_a_loss_is_always_of_one_kind() -> None:
    class Changing:
        calls = 0

        def __call__(self, scores: Tensor, targets: Tensor) -> Any:
            self.calls += 1
            return tokens(scores, targets) if self.calls < 3 else mean(scores, targets)

    with pytest.raises(TrainingError, match=r"a sum and a count for some batches, .* \(unit: \(0,1\), batch: 2\)"):
        run_simulator(task_with(Changing()), settings_of(1, 2))


def test_momentum_of_learners_would_add_up_what_is_not_divided() -> None:
    with pytest.raises(ConfigError, match="the loss is a sum and a count, and learners with momentum"):
        plan_of(task_with(), served("softsync", momentum_at="learner"))


class Mine(GradientMean):
    """All-reduce of one's own."""


def test_a_mixing_of_ones_own_that_averages_gradients_knows_no_counts() -> None:
    with pytest.raises(ConfigError, match="a mixing of one's own knows no counts"):
        make_plan(task_with(), settings_of(2, 1, method="data-parallel", mixing=Mine()))


def test_nothing_counted_in_the_test_data_is_told() -> None:
    x, y = sequences(20).tensors
    task = task_with(test=TensorDataset(x, torch.full_like(y, IGNORED)))
    with pytest.raises(TrainingError, match="nothing is counted in the loss of the test data"):
        run_simulator(task, settings_of(1, 1))
