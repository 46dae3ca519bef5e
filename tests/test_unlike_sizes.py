"""Groups with batches of unlike sizes, held against plain loops that are written here, bit for bit.

The loops take their samples from one permutation of the data, share each update out by hand, and weigh means by hand.
"""

import copy
import json
import shutil
from collections import deque
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import stalegrid
from stalegrid.checkpoints.layout import FOLDER
from stalegrid.cli import main
from stalegrid.config import Settings
from stalegrid.data import Batches, Stream, reading_of
from stalegrid.errors import ConfigError
from stalegrid.observe import METRICS, MODEL
from stalegrid.plans.membership import LostGroup, Membership, ReturnedGroup
from stalegrid.plans.task import Task
from stalegrid.runs import execute
from stalegrid.studies.losing import relive
from stalegrid.studies.verifying import Outcome, compare, read_outcome
from stalegrid.timing.costs import Cost, CostTable
from stalegrid.written import read_yaml
from tests import cases
from tests.test_stopped import check_same

SIZES, UPDATES, SEED = [6, 2, 4], 8, 3
PATH = "0-1,1-2"
SHARES = {(0, 1): 2 / 12, (1, 0): 6 / 12, (1, 2): 4 / 12, (2, 1): 2 / 12}
"""What groups of these sizes take of each other on that path: B_r over the larger of 8, 12 and 6 samples around."""


def data_of(samples: int = 50) -> TensorDataset:
    draw = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(samples, 5, generator=draw), torch.randint(0, 3, (samples,), generator=draw))


def build() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


OPTIMIZER = partial(SGD, lr=0.2, momentum=0.9, weight_decay=0.01)


def settings_of(**options: Any) -> Settings:
    given: dict[str, Any] = {
        "batch_size": SIZES,
        "groups": len(SIZES),
        "stages": 1,
        "updates": UPDATES,
        "seed": SEED,
        "engine": "simulator",
        "log_every": 1,
        "loggers": [],
    }
    return cases.flat(Settings, **(given | options))


def task_of(model: nn.Module | None = None, data: Any = None, **changes: Any) -> Task:
    given = {"loss": nn.CrossEntropyLoss(), "optimizer": OPTIMIZER} | changes
    return Task(model or build(), data_of() if data is None else data, **given)


def train(task: Task | None = None, **options: Any) -> stalegrid.Result:
    return execute(task or task_of(), settings_of(**options), quiet=True)


def records_of(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / METRICS).read_text().splitlines())
    return [record for record in lines if record["kind"] == kind]


class Samples:
    """What each group trains on, shared out by hand."""

    def __init__(self, sizes: list[int]) -> None:
        self.whole = Batches(data_of(), groups=1, batch_size=sum(sizes), seed=SEED)
        self.bounds = list(pairwise(accumulate(sizes, initial=0)))

    def of(self, group: int, update: int) -> tuple[Tensor, Tensor]:
        first, last = self.bounds[group]
        found = data_of()[self.whole.indices(0, update)[first:last]]
        return found[0], found[1]


def plain(kind: str, staleness: int, sizes: list[int] = SIZES) -> tuple[list[nn.Sequential], list[float]]:
    """Train groups whose lower halves are so many updates late; return them, and the mean loss of every update."""
    samples, groups, losses = Samples(sizes), [build() for _ in sizes], list[float]()
    steps = [OPTIMIZER(own[:2].parameters()) for own in groups] + [OPTIMIZER(own[2:].parameters()) for own in groups]
    flying: list[deque[tuple[nn.Module, Tensor]]] = [deque() for _ in sizes]
    weights = [size / max(sizes) for size in sizes]
    for n in range(UPDATES):
        before, total = copy.deepcopy(groups), 0.0
        for s, own in enumerate(groups):
            for b in range(staleness + n if n else 0, min(staleness + n, UPDATES - 1) + 1):
                below = copy.deepcopy(own[:2])
                flying[s].append((below, below(samples.of(s, b)[0])))
            below, hidden = flying[s].popleft()
            crossing = hidden.detach().requires_grad_()
            loss = F.cross_entropy(own[2:](crossing), samples.of(s, n)[1])
            loss.backward()
            hidden.backward(crossing.grad)
            for late, live in zip(below.parameters(), own[:2].parameters(), strict=True):
                live.grad = late.grad
            total += weights[s] * float(loss.detach())
        losses.append(total / sum(weights))
        if kind == "all-reduce":
            for replicas in zip(*(own.parameters() for own in groups), strict=True):
                mean = torch.zeros_like(replicas[0])
                for weight, p in zip(weights, replicas, strict=True):
                    assert p.grad is not None
                    mean = mean + p.grad * weight
                for p in replicas:
                    p.grad = mean / sum(weights)
        for step in steps:
            step.step()
            step.zero_grad()
        if kind != "all-reduce":
            mix(groups, before if kind == "combine-while-adapt" else copy.deepcopy(groups))
    return groups, losses


@torch.no_grad()
def mix(groups: list[nn.Sequential], shared: list[nn.Sequential]) -> None:
    for s, own in enumerate(groups):
        for i, p in enumerate(own.parameters()):
            delta = torch.zeros_like(p)
            for r in range(len(groups)):
                if (s, r) in SHARES:
                    gap = list(shared[r].parameters())[i] - list(shared[s].parameters())[i]
                    delta = delta + gap * SHARES[s, r]
            p += delta


def mean_of(groups: list[nn.Sequential], sizes: list[int] = SIZES) -> dict[str, Tensor]:
    weights, found = [size / max(sizes) for size in sizes], {}
    for name, first in groups[0].state_dict().items():
        own = [group.state_dict()[name] for group in groups]
        total = own[0] * weights[0]
        for weight, tensor in zip(weights[1:], own[1:], strict=True):
            total = total + tensor * weight
        found[name] = first if all(torch.equal(first, other) for other in own) else total / sum(weights)
    return found


def check_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def options_of(kind: str, staleness: int | None) -> dict[str, Any]:
    mixing = stalegrid.MixingSettings(kind=kind, topology=PATH)
    if staleness is None:
        return {"method": "data-parallel" if kind == "all-reduce" else "pham-ahn", "mixing": mixing}
    return {"method": "pham-ahn", "mixing": mixing, "stages": 2, "cuts": ["2"], "staleness": [staleness, 0]}


def outcome(task: Task, settings: Settings, folder: Path) -> tuple[stalegrid.Result, Outcome]:
    """Run, and read every unit's numbers back."""
    result = execute(task, cases.changed(settings, folder=folder), quiet=True, keep_units=True)
    return result, read_outcome(folder, cases.make_plan(task, settings))


@pytest.mark.parametrize("engine", ["simulator", "processes"])
@pytest.mark.parametrize("staleness", [None, 0, 2])
@pytest.mark.parametrize("kind", ["all-reduce", "combine-while-adapt", "adapt-then-combine"])
def test_it_is_the_loop_that_weighs_by_samples(kind: str, staleness: int | None, engine: str, tmp_path: Path) -> None:
    groups, losses = plain(kind, staleness or 0)
    settings = settings_of(**options_of(kind, staleness), engine=engine)
    result, found = outcome(task_of(), settings, tmp_path / "run")
    for (s, name), tensor in found.parameters.items():
        assert torch.equal(tensor, groups[s].get_parameter(name)), (s, name)
    check_equal(mean_of(groups), dict(result.model.state_dict()))
    reported = records_of(tmp_path / "run")
    assert [record["loss"] for record in reported] == losses
    assert [record["samples"] for record in reported] == [sum(SIZES)] * UPDATES


def test_the_distance_of_groups_is_weighed_as_their_mean_is(tmp_path: Path) -> None:
    settings = settings_of(**options_of("combine-while-adapt", None))
    _, found = outcome(task_of(), settings, tmp_path / "run")
    groups, _ = plain("combine-while-adapt", 0)
    mean, total = mean_of(groups), 0.0
    for (s, name), tensor in found.parameters.items():
        total += SIZES[s] / sum(SIZES) * float((tensor.double() - mean[name].double()).square().sum())
    (evaluation,) = records_of(tmp_path / "run", "test")[-1:]
    assert evaluation["consensus_distance"] == pytest.approx(total**0.5, rel=1e-12)


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("kind", ["all-reduce", "combine-while-adapt", "adapt-then-combine", "none"])
def test_one_size_said_for_each_group_is_one_size(kind: str, stages: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"mixing": stalegrid.MixingSettings(kind=kind), "method": "pham-ahn", "stages": stages}
    if stages == 2:
        options["cuts"] = ["2"]
    one, other = (
        outcome(task_of(), settings_of(**options, batch_size=size), tmp_path / str(size)) for size in (4, [4, 4, 4])
    )
    assert compare("", one[1], other[1]).equal
    check_equal(dict(one[0].model.state_dict()), dict(other[0].model.state_dict()))
    same = [records_of(tmp_path / name, "test")[-1]["consensus_distance"] for name in ("4", "[4, 4, 4]")]
    assert same[0] == same[1]


class Line(nn.Module):
    """Numbers whose sums are exact, so that no order of additions rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.above = nn.Linear(3, 2, dtype=torch.float64), nn.Linear(2, 1, dtype=torch.float64)
        with torch.no_grad():
            for number, p in enumerate(self.parameters(), start=1):
                p.copy_(torch.arange(number, number + p.numel()).view(p.shape) % 3 - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.below(x)).squeeze(1)


def whole_numbers() -> TensorDataset:
    draw = torch.Generator().manual_seed(5)
    x, y = torch.randint(-2, 3, (32, 3), generator=draw), torch.randint(-2, 3, (32,), generator=draw)
    return TensorDataset(x.double(), y.double())


def squares(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return (outputs - targets).square().sum(), torch.tensor(len(targets))


@pytest.mark.parametrize("loss", [nn.MSELoss(), squares], ids=["mean", "sum and count"])
@pytest.mark.parametrize(
    "options", [{}, {"stages": 2, "cuts": ["above"], "method": "1f1b", "micro_batches": 2}], ids=str
)
def test_all_reduce_over_unlike_groups_is_one_loop_over_all_their_samples(loss: Any, options: dict[str, Any]) -> None:
    # Powers of two, so that means are as exact as sums: otherwise the two differ by roundings.
    sizes, updates, rate = [8, 4, 4], 2, 2**-5
    model, data = Line(), whole_numbers()
    batches = Batches(data, groups=1, batch_size=sum(sizes), seed=SEED)
    step = SGD(model.parameters(), lr=rate)
    for n in range(updates):
        value = F.mse_loss(model(*batches.inputs(0, n)), batches.targets(0, n))
        step.zero_grad()
        value.backward()
        step.step()
    task = task_of(Line(), data, loss=loss, optimizer=partial(SGD, lr=rate))
    mixing = stalegrid.MixingSettings(kind="all-reduce")
    chosen = {"method": "data-parallel", "batch_size": sizes, "updates": updates, "mixing": mixing} | options
    result = train(task, **chosen)
    check_equal(dict(model.state_dict()), dict(result.model.state_dict()))
    assert result.summary["train_loss"] == float(value.detach())


@pytest.mark.parametrize("kind", ["combine-while-adapt", "adapt-then-combine"])
def test_the_weighted_mean_moves_by_the_mean_gradient_of_all_samples(kind: str, tmp_path: Path) -> None:
    sizes, rate = [8, 4, 4], 2**-5
    model, data = Line(), whole_numbers()
    batches = Batches(data, groups=1, batch_size=sum(sizes), seed=SEED)
    value = F.mse_loss(model(*batches.inputs(0, 0)), batches.targets(0, 0))
    value.backward()
    SGD(model.parameters(), lr=rate).step()
    task = task_of(Line(), data, loss=nn.MSELoss(), optimizer=partial(SGD, lr=rate))
    mixing = stalegrid.MixingSettings(kind=kind, topology="0-1,1-2")
    result = train(task, method="pham-ahn", batch_size=sizes, updates=1, mixing=mixing)
    # P rounds: its entries are no powers of two.
    for name, p in result.model.named_parameters():
        torch.testing.assert_close(p, model.get_parameter(name), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_a_run_that_goes_on_has_the_same_bits(engine: str, tmp_path: Path) -> None:
    options = options_of("combine-while-adapt", 2) | {
        "engine": engine,
        "checkpoint": stalegrid.CheckpointSettings(every=3, keep=9),
    }
    whole = train(**options, folder=tmp_path / "run")
    (tmp_path / "other").mkdir()
    shutil.copytree(tmp_path / "run", tmp_path / "other" / "run")
    source = tmp_path / "other" / "run" / FOLDER / f"{3:09d}"
    settings = settings_of(**options, folder=tmp_path / "other" / "run")
    check_same(execute(task_of(), settings, resume=source, quiet=True), whole)
    with pytest.raises(ConfigError, match="batch_size"):
        execute(task_of(), cases.changed(settings, batch_size=[4, 4, 4]), resume=source, quiet=True)


@pytest.mark.parametrize("kind", ["all-reduce", "combine-while-adapt"])
def test_without_a_lost_group_the_others_weigh_what_they_have(kind: str, tmp_path: Path) -> None:
    mixing = stalegrid.MixingSettings(kind=kind, topology="complete")
    options: dict[str, Any] = {
        "method": "pham-ahn",
        "mixing": mixing,
        "checkpoint": stalegrid.CheckpointSettings(every=2),
    }
    options |= {"engine": stalegrid.EngineSettings(on_loss="continue")}
    settings = settings_of(**options)
    plan = cases.make_plan(task_of(), settings).among(Membership((LostGroup(1, 4, ""),)))
    assert plan.turns.weights == {0: 1.0, 2: 4 / 6}
    np.testing.assert_allclose(plan.turns.matrix.weights(0)[0], [0.6, 0, 0.4])
    assert plan.epochs(8) == (8 - 4 * 2 / 12) / (50 // 12)
    away = Membership((LostGroup(1, 2, ""),), (ReturnedGroup(1, 6, 0),))
    result = relive(task_of(), settings, away, tmp_path / "run", quiet=True)
    records = records_of(tmp_path / "run")
    assert [record["samples"] for record in records] == [12] * 2 + [10] * 4 + [12] * 2
    one, other = records[3]["group_loss"]
    assert records[3]["loss"] == (one + 4 / 6 * other) / (1 + 4 / 6)
    assert result.summary["version"] == UPDATES
    if kind == "all-reduce":
        assert result.summary["consensus_distance"] == 0.0


def test_an_exported_model_is_the_weighted_mean_and_a_run_goes_on_from_there_in_another_shape(tmp_path: Path) -> None:
    options = options_of("combine-while-adapt", 2) | {"checkpoint": stalegrid.CheckpointSettings(every=5)}
    train(**options, folder=tmp_path / "run")
    files = [tmp_path / f"{s}.safetensors" for s in range(3)]
    for s, file in enumerate(files):
        stalegrid.export(tmp_path / "run", file, group=s)
    stalegrid.export(tmp_path / "run", tmp_path / "mean.safetensors")
    groups = [build() for _ in files]
    for own, file in zip(groups, files, strict=True):
        own.load_state_dict(load_file(file))
    assert not torch.equal(groups[0][0].weight, groups[1][0].weight)
    check_equal(load_file(tmp_path / "mean.safetensors"), mean_of(groups))
    moments = [
        load_file(file.with_suffix(".optimizer.safetensors")) for file in (*files, tmp_path / "mean.safetensors")
    ]
    weights = [size / max(SIZES) for size in SIZES]
    for name, found in moments[-1].items():
        first, *others = (weight * own[name] for weight, own in zip(weights, moments, strict=False))
        assert torch.equal(found, sum(others, first) / sum(weights)), name
    settings = settings_of(method="pham-ahn", groups=2, batch_size=[10, 2], folder=tmp_path / "other")
    result = execute(task_of(), settings, resume=tmp_path / "run", reshape=True, quiet=True)
    assert result.summary["version"] == UPDATES
    assert records_of(tmp_path / "other")[0]["update"] == 6  # an update takes 12 samples in both


def test_a_slow_group_that_takes_less_holds_nobody_up(tmp_path: Path) -> None:
    costs = CostTable(6, (Cost(forward=6.0, backward=12.0, update=0.5, name="input"),))
    costs.write(tmp_path / "costs.yaml")
    taken = {}
    for sizes in ([4, 4], [6, 2]):
        options = {
            "method": "data-parallel",
            "groups": 2,
            "batch_size": sizes,
            "slow": "1,0=3.0",
            "costs": tmp_path / "costs.yaml",
        }
        taken[sizes[0]] = train(**options).summary["virtual_seconds"]
    # Of a batch of 6 a device makes 18 ms; the slow one takes three times as long for each sample, and for the step.
    assert taken == {4: UPDATES * (3 * 12.0 + 3 * 0.5) / 1000, 6: UPDATES * (18.0 + 3 * 0.5) / 1000}


class Normed(nn.Sequential):
    """Cannot be trained on one sample."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        data = data_of()
        return (data[n % len(data)] for n in range(10**6))


@pytest.mark.parametrize("staleness", [None, 2])
def test_streams_are_shared_out_likewise(staleness: int | None, tmp_path: Path) -> None:
    settings = settings_of(**options_of("combine-while-adapt", staleness))
    one, other = (
        outcome(task_of(data=data), cases.changed(settings, engine=engine), tmp_path / engine)[1]
        for data, engine in ((Endless(), "simulator"), (Endless(), "processes"))
    )
    assert compare("", one, other).equal
    stream = Stream(Endless(), groups=3, batch_size=SIZES)
    seen = [int(stream.indices(group, update)[0]) for update in range(2) for group in range(3)]
    assert seen == [0, 6, 8, 12, 18, 20]
    for group, first in enumerate(seen[:3]):
        assert torch.equal(stream.inputs(group, 0)[0], data_of()[first : first + SIZES[group]][0])


class Texts(Dataset[tuple[Tensor, int]]):
    """Rows of some lengths."""

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        draw = torch.Generator().manual_seed(index)
        return torch.randn(2 + index % 5, 5, generator=draw), index % 3


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.below, self.above = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.below(x).mean(1))


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_a_model_that_is_cut_takes_every_shape_of_every_size(engine: str) -> None:
    task = task_of(Pooled(), reading_of(Texts(), stalegrid.pad_to([4, 6], 0.0)))
    mixing = stalegrid.MixingSettings(kind="all-reduce")
    common: dict[str, Any] = {"mixing": mixing, "method": "1f1b", "micro_batches": 1, "engine": engine}
    cut = train(task, **common, stages=2, cuts=["above"])
    whole = train(task, **common, stages=1)
    check_equal(dict(cut.model.state_dict()), dict(whole.model.state_dict()))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "groups": ({"batch_size": [6, 2]}, r"one number, or one for each group \(batch_size: 6,2, groups: 3\)"),
    "none": ({"batch_size": [6, 0, 4]}, "batch_size must be at least 1, not 0"),
    "micro-batches": ({"micro_batches": 4, "method": "gpipe"}, "4 micro-batches do not divide a batch of 6 samples"),
    "topology": ({"topology": "one-peer-exponential"}, r"keeps no mean that is weighed .*\(batch_size: 6,2,4\); take"),
    "matrix": (
        {"topology": [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]},
        r"column 1 times the ratio of the groups' samples \(batch_size: 6,2,4\) sums to 1.75, not 1",
    ),
    "mixing": (
        {"mixing": stalegrid.MixingSettings(kind="tests.test_unlike_sizes:Own")},
        r"own does not know that groups weigh unlike much \(mixing: .*Own, batch_size: 6,2,4\)",
    ),
    "learners": (
        {"method": "softsync", "groups": None, "stages": None, "learners": 3},
        r"servers take every gradient for as much .*\(training.batch_size: 6,2,4\); give one number",
    ),
}


class Own(stalegrid.Mixing):
    """A mixing of the user's own."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name: str) -> None:
    options, said = REFUSED[name]
    with pytest.raises(ConfigError, match=said):
        train(**({"method": "pham-ahn"} | options))


def test_an_own_matrix_that_keeps_the_weighted_mean_is_taken() -> None:
    rows = [[1 - 2 / 12, 2 / 12, 0], [6 / 12, 2 / 12, 4 / 12], [0, 2 / 12, 1 - 2 / 12]]
    mine = train(method="pham-ahn", mixing=stalegrid.MixingSettings(topology=rows))
    named = train(method="pham-ahn", mixing=stalegrid.MixingSettings(topology=PATH))
    check_equal(dict(mine.model.state_dict()), dict(named.model.state_dict()))


@pytest.mark.parametrize("options", [{}, {"stages": 2, "cuts": ["2"]}], ids=str)
def test_a_group_whose_batch_is_too_small_for_the_model_is_refused_before_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="more than 1 value") as caught:
        train(task_of(Normed()), method="pham-ahn", batch_size=[6, 1, 4], **options)
    assert "incomplete" not in str(caught.value)
    training = stalegrid.TrainingSettings(drop_last=False)
    with pytest.raises(ConfigError, match=r"incomplete last batch of an epoch \(samples: 1, of a whole batch: 4\)"):
        train(
            task_of(Normed(), data_of(27)), groups=2, method="pham-ahn", batch_size=[4, 8], training=training, **options
        )


def test_the_rest_of_an_epoch_is_shared_out_in_the_same_proportions_or_refused(tmp_path: Path) -> None:
    training = stalegrid.TrainingSettings(drop_last=False)
    with pytest.raises(ConfigError, match=r"parted as 6 to 2 to 4 \(samples: 2, groups: 3, micro-batches: 1\)"):
        train(method="pham-ahn", training=training)
    train(task_of(data=data_of(54)), method="pham-ahn", training=training, updates=10, folder=tmp_path / "run")
    assert [record["samples"] for record in records_of(tmp_path / "run")] == [12, 12, 12, 12, 6] * 2
    batches = Batches(data_of(54), groups=3, batch_size=SIZES, drop_last=False)
    assert [len(batches.indices(s, 4)) for s in range(3)] == [3, 1, 2]


def test_a_list_on_the_command_line(tmp_path: Path) -> None:
    options = ["--method", "data-parallel", "--groups", "2", "--batch-size", "6,2", "--updates", "3"]
    assert main(["train", *options, "--engine", "simulator", "--out", str(tmp_path / "run")]) == 0
    assert read_yaml(tmp_path / "run" / "config.yaml")["training"]["batch_size"] == [6, 2]
    assert main(["train", "--config", str(tmp_path / "run" / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / MODEL).read_bytes() == (tmp_path / "run" / MODEL).read_bytes()
