"""Groups and learners that have samples of their own, held against plain loops whose batches are dealt here by hand.

By hand: from the formulas, with the standard library, NumPy and torch's permutations under seeds that are derived here.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import stalegrid
from stalegrid.checkpoints.layout import FOLDER
from stalegrid.errors import ConfigError
from stalegrid.objects import Form
from stalegrid.objects.trees import PLACE
from stalegrid.observe import METRICS, SUMMARY
from stalegrid.plans.membership import LostGroup, Membership, ReturnedGroup
from stalegrid.plans.task import Task
from stalegrid.runs import execute
from stalegrid.studies import loops
from stalegrid.studies.losing import relive
from stalegrid.studies.verifying import Outcome, compare, outcome_of, read_outcome
from tests import cases
from tests.test_stopped import check_same

SEED = 3
SPLITS = ["dirichlet=0.6", "shards=2"]


def drawn(*key: object) -> int:
    whole = hashlib.blake2b(":".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(whole, "little") >> 1


def permuted(number: int, *key: object) -> list[int]:
    return torch.randperm(number, generator=torch.Generator().manual_seed(drawn(*key))).tolist()


def by_hand(split: str, labels: list[int], groups: int, seed: int = SEED) -> list[list[int]]:
    """Return the samples of each group, ascending."""
    own: list[list[int]] = [[] for _ in range(groups)]
    kind, number = split.split("=")
    if kind == "dirichlet":
        for place, label in enumerate(sorted(set(labels))):
            members = [i for i, found in enumerate(labels) if found == label]
            order = [members[i] for i in permuted(len(members), seed, "split", place)]
            shares = np.random.default_rng(drawn(seed, "proportions", place)).dirichlet([float(number)] * groups)
            ends = [int(end * len(members)) for end in np.cumsum(shares)[:-1]] + [len(members)]
            for s, end in enumerate(ends):
                own[s] += order[ends[s - 1] if s else 0 : end]
    else:
        order = sorted(range(len(labels)), key=lambda i: (labels[i], i))
        shards = int(number) * groups
        size, more = divmod(len(labels), shards)
        starts = [i * size + min(i, more) for i in range(shards + 1)]
        for place, shard in enumerate(permuted(shards, seed, "split")):
            own[place // int(number)] += order[starts[shard] : starts[shard + 1]]
    return [sorted(samples) for samples in own]


class ByHand:
    """Batches of the small task."""

    form = Form(((PLACE,), {}))

    def __init__(self, split: str, sizes: list[int], micro: int = 1) -> None:
        self.data = cases.images()
        self.own = by_hand(split, self.data.tensors[1].tolist(), len(sizes))
        self.sizes, self.micro = sizes, micro

    def indices(self, s: int, b: int) -> list[int]:
        own, size = self.own[s], self.sizes[s] // self.micro
        number, turn = divmod(b, len(own) // self.sizes[s] * self.micro)
        order = permuted(len(own), SEED, "order", number, s)
        return [own[i] for i in order[turn * size : (turn + 1) * size]]

    def inputs(self, s: int, b: int) -> tuple[Tensor, ...]:
        return (self.data.tensors[0][self.indices(s, b)],)

    def targets(self, s: int, b: int) -> Tensor:
        return self.data.tensors[1][self.indices(s, b)]


def loop(task: Task, settings: Any, batches: ByHand, patch: pytest.MonkeyPatch) -> Outcome:
    """Run the plain loop on batches that are made here."""
    plan = cases.plan_of(task, settings)
    with patch.context() as within:
        within.setattr(loops, "make_batches", lambda *_: batches)
        found = loops.plain_loop(task, plan, cases.CPU)
    assert found is not None
    return outcome_of(found())


def outcome(task: Task, settings: Any, folder: Path, engine: str = "simulator") -> Outcome:
    """Run, and read every unit's numbers back."""
    chosen = cases.changed(settings, folder=folder, engine=engine, loggers=[])
    execute(task, chosen, quiet=True, keep_units=True)
    return read_outcome(folder, cases.plan_of(task, chosen))


def settings_of(groups: int, stages: int, split: str, **changes: Any) -> Any:
    return cases.make_settings(groups, stages, split=split, **({"method": "pham-ahn"} | changes))


GRIDS: list[tuple[int, int, dict[str, Any]]] = [
    (2, 1, {}),
    (3, 1, {"batch_size": [4, 2, 6]}),
    (2, 2, {"staleness": [2, 0]}),
    (3, 3, {"staleness": [4, 2, 0]}),
    (2, 2, {"method": "1f1b", "micro_batches": 2}),
]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("groups", "stages", "changes"), GRIDS, ids=str)
def test_the_simulator_is_the_loop(
    groups: int, stages: int, changes: dict[str, Any], split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, settings = cases.make_task(), settings_of(groups, stages, split, **changes)
    sizes = list(settings.training.sizes(groups))
    expected = loop(task, settings, ByHand(split, sizes, changes.get("micro_batches", 1)), monkeypatch)
    found = outcome(task, settings, tmp_path / "run")
    assert compare("", found, expected).equal
    even = outcome(task, cases.changed(settings, split="even"), tmp_path / "even")
    assert not compare("", even, expected).equal


@pytest.mark.parametrize(("dtype", "split"), [("float32", SPLITS[0]), ("float64", SPLITS[1])])
def test_so_are_processes(dtype: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, settings = cases.make_task(), settings_of(2, 2, split, staleness=[2, 0], dtype=dtype)
    found = outcome(task, settings, tmp_path / "run", "processes")
    here = outcome(task, settings, tmp_path / "here")
    assert compare("", found, here).equal
    if dtype == "float32":
        assert compare("", found, loop(task, settings, ByHand(split, [4, 4]), monkeypatch)).equal


@pytest.mark.thorough
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("groups", [2, 3])
def test_all_grids_of_processes_are_the_loop(
    groups: int, stages: int, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, settings = cases.make_task(), settings_of(groups, stages, split)
    expected = loop(task, settings, ByHand(split, [4] * groups), monkeypatch)
    assert compare("", outcome(task, settings, tmp_path / "run", "processes"), expected).equal


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_learners_have_samples_of_their_own_too(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = cases.make_task()
    settings = cases.make_settings(method="hardsync", learners=3, split=SPLITS[0], groups=None, stages=None)
    expected = loop(task, settings, ByHand(SPLITS[0], [4] * 3), monkeypatch)
    result = execute(task, cases.changed(settings, folder=tmp_path / "run", engine=engine), quiet=True)
    for (_, name), value in expected.parameters.items():
        assert torch.equal(result.model.state_dict()[name], value), name
    assert result.summary["dealt"]["groups"] == counts_by_hand(SPLITS[0], 3)


def counts_by_hand(split: str, groups: int) -> list[list[int]]:
    labels = cases.images().tensors[1].tolist()
    own = by_hand(split, labels, groups)
    return [[sum(labels[i] == label for i in samples) for label in range(3)] for samples in own]


SCRIPT = """
import sys
from pathlib import Path
from tests import cases
from tests.test_unlike_data import outcome, settings_of

if __name__ == "__main__":
    from stalegrid.runs import execute
    settings = settings_of(2, 2, sys.argv[2], staleness=[2, 0])
    execute(cases.make_task(), cases.changed(settings, folder=Path(sys.argv[1]), engine="processes"), quiet=True)
"""


@pytest.mark.thorough
def test_and_processes_of_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    made = subprocess.run(
        [*command, str(tmp_path / "run"), SPLITS[0]], env=environment, capture_output=True, text=True, timeout=200
    )
    assert made.returncode == 0, made.stderr
    task, settings = cases.make_task(), settings_of(2, 2, SPLITS[0], staleness=[2, 0])
    here = execute(task, cases.changed(settings, folder=tmp_path / "here", engine="simulator"), quiet=True)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in here.model.state_dict().items())
    lines = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    losses = [line["group_loss"] for line in lines if line["kind"] == "train"]
    assert losses == loop(task, settings, ByHand(SPLITS[0], [4, 4]), monkeypatch).losses


def test_the_summary_says_who_has_what(tmp_path: Path) -> None:
    settings = settings_of(3, 1, SPLITS[1], folder=tmp_path / "run", engine="simulator")
    execute(cases.make_task(), settings, quiet=True)
    summary = json.loads((tmp_path / "run" / SUMMARY).read_text())
    assert summary["dealt"] == {"labels": [0, 1, 2], "groups": counts_by_hand(SPLITS[1], 3)}
    assert "split: shards=2" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_a_run_that_goes_on_has_the_same_bits(engine: str, tmp_path: Path) -> None:
    options = {
        "staleness": [2, 0],
        "engine": engine,
        "checkpoint": stalegrid.CheckpointSettings(every=3, keep=9),
        "folder": tmp_path / "run",
    }
    settings = settings_of(2, 2, SPLITS[0], **options)
    whole = execute(cases.make_task(), settings, quiet=True)
    (tmp_path / "other").mkdir()
    shutil.copytree(tmp_path / "run", tmp_path / "other" / "run")
    source = tmp_path / "other" / "run" / FOLDER / f"{3:09d}"
    again = cases.changed(settings, folder=tmp_path / "other" / "run")
    check_same(execute(cases.make_task(), again, resume=source, quiet=True), whole)
    with pytest.raises(ConfigError, match=r"split: shards=2, then: dirichlet=0.6"):
        execute(cases.make_task(), cases.changed(again, split="shards=2"), resume=source, quiet=True)
    data = cases.images()
    # The same samples where anybody looks, and another label elsewhere.
    data.tensors[1][1] = (data.tensors[1][1] + 1) % 3
    with pytest.raises(ConfigError, match="groups have other samples for their own than they had"):
        execute(cases.make_task(data=data), again, resume=source, quiet=True)


def test_a_run_goes_on_in_another_shape_with_the_same_samples_alone(tmp_path: Path) -> None:
    options = {"engine": "simulator", "checkpoint": stalegrid.CheckpointSettings(every=4)}
    settings = settings_of(2, 2, SPLITS[0], folder=tmp_path / "run", **options)
    execute(cases.make_task(), settings, quiet=True)
    own = {"groups": 2, "stages": 1, "cuts": None}
    found = execute(
        cases.make_task(),
        cases.changed(settings, folder=tmp_path / "a", **own),
        resume=tmp_path / "run",
        reshape=True,
        quiet=True,
    )
    assert found.summary["start"]["update"] == 4
    assert found.summary["start"]["samples_twice"] == 0
    others: list[dict[str, Any]] = [{"groups": 3}, {"batch_size": [2, 6]}, {"split": "even"}, {"seed": 4}]
    for number, other in enumerate(others):
        changed = cases.changed(settings, folder=tmp_path / f"b{number}", **(own | other))
        with pytest.raises(ConfigError, match="are each at a place in them"):
            execute(cases.make_task(), changed, resume=tmp_path / "run", reshape=True, quiet=True)


def test_a_group_that_is_lost_and_comes_back_has_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixing = stalegrid.MixingSettings(topology="complete")
    engine = stalegrid.EngineSettings(on_loss="continue")
    options = {"mixing": mixing, "checkpoint": stalegrid.CheckpointSettings(every=2), "engine": engine}
    away = Membership((LostGroup(1, 2, ""),), (ReturnedGroup(1, 6, 0),))
    read: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    from stalegrid.data.owned import Owned

    plain = Owned.indices

    def noted(self: Owned, group: int, batch: int) -> Tensor:
        found = plain(self, group, batch)
        read[group] |= set(found.tolist())
        return found

    monkeypatch.setattr(Owned, "indices", noted)
    relive(cases.make_task(), settings_of(3, 1, SPLITS[0], **options), away, tmp_path / "run", quiet=True)
    own = by_hand(SPLITS[0], cases.images().tensors[1].tolist(), 3)
    assert all(read[s] and read[s] <= set(own[s]) for s in range(3))


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "alpha": ({"split": "dirichlet=0"}, {}, "ALPHA is a number above 0"),
    "shards": ({"split": "shards=0"}, {}, "at least one shard"),
    "unknown": ({"split": "zipf=2"}, {}, "no such split"),
    "a group without a batch": (
        {"split": "shards=1", "batch_size": 40},
        {},
        r"without a batch \(group: 0, samples: 25",
    ),
    "last": ({"drop_last": False}, {}, "end their passes at different updates"),
    "regression": (
        {},
        {"data": torch.utils.data.TensorDataset(torch.randn(50, 2, 6, 6), torch.randn(50))},
        "one whole",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_before_anything_starts(name: str, tmp_path: Path) -> None:
    options, task, text = REFUSED[name]
    settings = settings_of(2, 1, **({"split": SPLITS[1]} | options), folder=tmp_path / "run")
    with pytest.raises(ConfigError, match=text):
        execute(cases.make_task(**task), settings, quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_stream_is_refused() -> None:
    class Endless(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("gone through")

    with pytest.raises(ConfigError, match="the labels of a stream show only as it is gone through"):
        execute(cases.make_task(data=Endless()), settings_of(2, 1, SPLITS[0]), quiet=True)
