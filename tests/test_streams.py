"""Targets that travel, and streams, held against targets that are read, plain loops, and other engines, bit for bit."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset

import stalegrid
from stalegrid import seeds
from stalegrid.agents.build import build_agents
from stalegrid.data import TrainingSettings
from stalegrid.errors import ConfigError, SampleError
from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import Unit
from stalegrid.studies.verifying import verify
from tests.cases import (
    CPU,
    CUTS,
    Net,
    Recorder,
    build,
    changed,
    compare,
    hold_to_the_loop,
    make_plan,
    make_settings,
    make_task,
    record_simulator,
    run_simulator,
)

TRAVEL = TrainingSettings(targets="travel")


class Images(IterableDataset[Any]):
    """Noise with a class-dependent mean, some of it drawn by the keys of the run; begins anew after ``size``."""

    def __init__(self, size: int | None = 50, tree: bool = False) -> None:
        self.size, self.tree = size, tree

    def __iter__(self) -> Iterator[Any]:
        for n in itertools.count():
            if n == self.size:
                return
            label = n * 7 % 3
            x = torch.randn(2, 6, 6) + label / 2
            yield (x, {"class": label, "weight": float(n % 2 + 1)}) if self.tree else (x, label)


class Counted(Images):
    """Says how many samples it has."""

    def __len__(self) -> int:
        assert self.size is not None
        return self.size


def weighted(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
    return (F.cross_entropy(outputs, targets["class"], reduction="none") * targets["weight"]).mean()


def travelling(settings: Any) -> Any:
    return changed(settings, targets="travel")


def train(data: Any, **options: Any) -> stalegrid.Result:
    given: dict[str, Any] = {
        "method": "pipedream",
        "stages": 2,
        "cuts": CUTS[2],
        "batch_size": 4,
        "updates": 6,
        "engine": "simulator",
    }
    task = make_task(data=data)
    return stalegrid.train(task.model, data, loss=task.loss, optimizer=task.optimizer, **(given | options), quiet=True)


GRIDS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "whole": (1, 1, {}),
    "two stages": (1, 2, {}),
    "three stages": (1, 3, {"view": "current"}),
    "second forwards": (1, 3, {"view": "recomputed", "method": "dsp"}),
    "groups": (2, 2, {"lag": 1}),
    "groups of three": (2, 3, {}),
    "micro-batches": (1, 3, {"method": "1f1b", "micro_batches": 2}),
    "groups that flush": (2, 2, {"method": "gpipe", "micro_batches": 2}),
    "two-buffered": (1, 2, {"method": "pipedream-2bw", "micro_batches": 2}),
}


@pytest.mark.parametrize("name", GRIDS)
def test_targets_that_travel_change_no_bit(name: str) -> None:
    groups, stages, options = GRIDS[name]
    task, settings = make_task(), make_settings(groups, stages, **options)
    compare(run_simulator(task, travelling(settings)), run_simulator(task, settings))


@pytest.mark.parametrize("name", GRIDS)
def test_a_stream_trains_as_the_plain_loop(name: str) -> None:
    groups, stages, options = GRIDS[name]
    task, settings = make_task(data=Images()), make_settings(groups, stages, **options)
    hold_to_the_loop(task, settings)


def test_a_stream_trains_as_anybody_would_train_on_it() -> None:
    """By hand, with nothing of the library but the keys, over the end of a pass."""
    settings = make_settings(1, 1, method="sgd", updates=8, batch_size=4)
    task = make_task(data=Images(18), scheduler=None, model=build(lambda: Net(plain=True)))
    found = run_simulator(task, settings)
    model, seed = build(lambda: Net(plain=True)), settings.training.seed
    optimizer = task.optimizer(list(model.parameters()))
    for n in range(8):
        number, start = n // 4, n % 4 * 4  # two samples of a pass of 18 fill no update
        if not start:
            samples = iter(task.data)
        items = []
        for i in range(start, start + 4):
            seeds.key(CPU, seed, "sample", number, i)
            items.append(next(samples))
        inputs, targets = torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    assert all(torch.equal(p, found.mean[name]) for name, p in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "data"),
    [("two stages", None), ("two stages", 50), ("second forwards", 50), ("groups that flush", 50), ("groups", 50)],
)
def test_processes_compute_what_the_simulator_and_the_loop_do(name: str, data: int | None) -> None:
    groups, stages, options = GRIDS[name]
    task = make_task() if data is None else make_task(data=Images(data))
    found = verify(task, travelling(make_settings(groups, stages, **options)))
    assert [(one.name, one.equal) for one in found] == [("processes", True), ("plain loops", True)]


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_that_share_stages_of_groups_do_too(processes: int) -> None:
    def trained(**options: Any) -> dict[str, Tensor]:
        return train(Images(), groups=2, mixing="combine-while-adapt", **options).model.state_dict()

    one, other = trained(), trained(engine="processes", processes=processes)
    assert all(map(torch.equal, one.values(), other.values()))


@pytest.mark.parametrize("stages", [2, 3])
def test_targets_that_are_trees_travel_whole(stages: int) -> None:
    task = make_task(data=Images(tree=True), loss=weighted)
    settings = make_settings(1, stages)
    hold_to_the_loop(task, settings)
    plan = make_plan(task, settings)
    last = Unit(0, stages - 1)
    assert [spec.dtype for spec in plan.layout(Edge("target", Unit(0, 0), last))] == [torch.int64, torch.float64]
    assert plan.nbytes(Edge("target", Unit(0, 0), last)) == 4 * (8 + 8)


def summed(outputs: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    each = F.cross_entropy(outputs, targets["class"], reduction="none")
    return (each * targets["weight"]).sum(), targets["weight"].sum()


def test_losses_that_are_sums_take_targets_that_travelled() -> None:
    settings = make_settings(2, 2, method="gpipe", micro_batches=2)
    (processes,) = verify(make_task(data=Images(tree=True), loss=summed), settings)
    assert processes.equal
    task = make_task(data=list(Images(tree=True)), loss=summed)
    compare(run_simulator(task, travelling(settings)), run_simulator(task, settings))


def frozen_below() -> Net:
    model = Net()
    model.conv1.requires_grad_(False)
    model.norm1.requires_grad_(False)
    return model


def test_a_first_stage_that_is_frozen_reads_and_sends_targets_too() -> None:
    settings = make_settings(1, 3, staleness=[3, 1, 0])
    task = make_task(data=Images(), model=build(frozen_below))
    assert make_plan(task, settings).program.frozen == 1
    hold_to_the_loop(task, settings)


class Stopping(stalegrid.Callback):
    """Asks for the end as soon as it is asked."""

    def on_evaluation(self, record: dict[str, Any], model: nn.Module) -> bool:
        return True


def test_a_run_on_a_stream_that_ends_early_is_the_shorter_one_on_every_engine() -> None:
    output = stalegrid.OutputSettings(evaluate_every=0.1)
    options: dict[str, Any] = {"updates": 40, "callbacks": [Stopping()], "output": output}
    one, other = (train(Images(), engine=engine, **options) for engine in ("simulator", "processes"))
    ended = one.summary["version"]
    assert ended == other.summary["version"] < 40
    shorter = train(Images(), updates=ended)
    states = [result.model.state_dict().values() for result in (one, other, shorter)]
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*states, strict=True))


@pytest.mark.parametrize("method", ["hardsync", "softsync", "asgd"])
def test_learners_read_their_shares_of_a_stream(method: str) -> None:
    settings = make_settings(cuts=None, groups=None, stages=None, method=method, learners=2)
    found = verify(make_task(data=Images(), scheduler=None), settings)
    assert [(one.name, one.equal) for one in found] == [("processes", True), ("plain loops", True)]


def in_place(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets.sub_(1).abs_())


@pytest.mark.parametrize("view", ["stashed", "current"])
def test_a_loss_may_change_its_targets_in_place(view: str) -> None:
    task, settings = make_task(loss=in_place), make_settings(2, 2, view=view)
    compare(run_simulator(task, travelling(settings)), run_simulator(task, settings))


def test_processes_hold_what_the_plan_says_though_targets_come_in_messages() -> None:
    summary = train(make_task().data, engine="processes", training=TRAVEL).summary
    assert [unit["held"] for unit in summary["staleness"]] == summary["held_at_most"]
    assert [unit["max"] for unit in summary["staleness"]] == summary["staleness_at_most"]


class Read(Images):
    """Counts what is read in this process."""

    samples = 0

    def __iter__(self) -> Iterator[Any]:
        for sample in super().__iter__():
            type(self).samples += 1
            yield sample


@pytest.mark.filterwarnings("ignore:reading data changes")
@pytest.mark.parametrize("view", ["stashed", "recomputed"])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_run_reads_each_sample_of_a_stream_once(groups: int, view: str) -> None:
    settings = make_settings(groups, 3, view=view, updates=6)
    task = make_task(data=Read(None))
    plan = make_plan(task, settings)
    Read.samples = 0
    record_simulator(task, settings, plan)
    assert Read.samples == groups * 4 * 6


@pytest.mark.filterwarnings("ignore:reading data changes")
def test_units_read_the_share_of_their_group_and_those_above_nothing() -> None:
    settings = make_settings(2, 2)
    task = make_task(data=Read(None))
    plan = make_plan(task, settings)
    Read.samples = 0
    (reader, *_) = built = build_agents(task, plan, [Unit(1, 0), Unit(0, 1), Unit(1, 1)], CPU, Recorder(plan))
    assert Read.samples == 0
    samples: Any = built[reader].agent._samples  # type: ignore[attr-defined]
    assert samples.inputs(1, 0)[0].shape == (4, 2, 6, 6)
    with pytest.raises(ConfigError, match="group 0 cannot be read"):
        samples.inputs(0, 0)


def test_a_stream_with_a_length_has_epochs() -> None:
    task = make_task(data=Counted(50), scheduler=None)
    settings = make_settings(2, 2, updates=None, epochs=1.5, evaluate_every=1.0)
    sink = record_simulator(task, settings)
    assert [record["epoch"] for record in sink.records] == [(n + 1) / 6 for n in range(9)]
    assert [record["version"] for record in sink.evaluations] == [6, 9]


def test_without_one_the_run_is_one_epoch_and_updates_are_asked_for() -> None:
    task = make_task(data=Images(), scheduler=None)
    sink = record_simulator(task, make_settings(1, 2, evaluate_every=0.5))
    assert [record["epoch"] for record in sink.records] == [(n + 1) / 8 for n in range(8)]
    assert [record["version"] for record in sink.evaluations] == [4, 8]
    with pytest.raises(ConfigError, match=r"no length to count epochs by \(epochs: 2.0, updates: None\); say how many"):
        make_plan(task, make_settings(1, 2, updates=None, epochs=2.0))


def test_what_streams_cannot_do_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"read by the first stage alone \(training.targets: read\)"):
        train(Images(), training=TrainingSettings(targets="read"))
    with pytest.raises(ConfigError, match=r"test data is a stream \(it is: Images\).*list\(itertools.islice\("):
        train(Images(), test=Images())
    with pytest.raises(ConfigError, match="augment needs an ArrayDataset, not Images; let the stream"):
        train(Images(), augment=stalegrid.CropAndFlip())
    with pytest.raises(ConfigError, match=r"not as many samples .* \(samples: 5, an update takes: 8\)"):
        train(Images(5), groups=2, mixing="combine-while-adapt")
    with pytest.raises(ConfigError, match=r"\(training.targets: travel\); leave training.targets out"):
        train(Images(), method="hardsync", stages=None, cuts=None, training=TRAVEL)
    assert train(Images(), test=list(itertools.islice(Images(), 20))).summary["test_loss"] > 0


class OwnDraws(Images):
    """Draws from a generator that goes on from pass to pass."""

    def __init__(self) -> None:
        super().__init__(None)
        self.own = torch.Generator()

    def __iter__(self) -> Iterator[Any]:
        return ((torch.randn(2, 6, 6, generator=self.own), y) for _, y in super().__iter__())


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_a_stream_that_does_not_repeat_is_told_of_and_trained_on_by_one_group(engine: str) -> None:
    with pytest.warns(UserWarning, match="gives other samples when it is gone through again"):
        assert train(OwnDraws(), engine=engine).summary["train_loss"] > 0
    with pytest.raises(ConfigError, match=r"goes through it for its share \(groups: 2\)"):
        train(OwnDraws(), groups=2, mixing="combine-while-adapt", engine=engine)


class Ends(Images):
    """Has one pass and no more."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        return iter(()) if self.epoch else super().__iter__()


def test_a_stream_that_ends_in_the_run_ends_it_with_its_numbers() -> None:
    train(Ends(24))
    with pytest.raises(SampleError, match=r"does not begin anew \(samples of pass 0: 23, of pass 1: 0"):
        train(Ends(23))
