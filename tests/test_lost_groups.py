"""A group that dies does not end a grid: those who are left go on as a replay of what happened does, to the bit."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stalegrid
from stalegrid.config import SHORT, Settings
from stalegrid.consensus.matrices import MixingMatrix, mixing_matrix
from stalegrid.errors import ConfigError, EngineError, GroupLost
from stalegrid.plans.membership import LostGroup, Membership
from stalegrid.plans.task import Task
from stalegrid.runs import Result, execute
from stalegrid.studies.losing import relive
from stalegrid.studies.replaying import replay
from stalegrid.written.groups import grouped
from tests.cases import CUTS, Net, build, images
from tests.test_stopped import check_same

pytestmark = pytest.mark.thorough


class Trap(nn.Module):
    """Ends or stops the first process that comes to a forward of this number, whichever group that is of."""

    def __init__(self, mark: Path, after: int, how: int) -> None:
        super().__init__()
        self.mark, self.after, self.how, self.seen = str(mark), after, how, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        if self.seen == self.after and float(x.detach().sum()) < float("inf"):  # a value: not to be traced
            try:
                os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return x
            os.kill(os.getpid(), self.how)
        return x


def task_of(trap: nn.Module | None = None) -> Task:
    model = build(Net)
    model.pool = nn.Sequential(model.pool, nn.Identity() if trap is None else trap)
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    return Task(model, images(), nn.CrossEntropyLoss(), optimizer, None, images(13), None, {})


LAZY = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]


def settings_of(folder: Path | None = None, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "method": "pham-ahn",
        "groups": 3,
        "stages": 2,
        "cuts": CUTS[2],
        "mixing": stalegrid.MixingSettings(kind="combine-while-adapt", topology="complete", lag=1),
        "batch_size": 4,
        "updates": 40,
        "checkpoint": 5,
        "output": stalegrid.OutputSettings(folder=folder, log_every=2, evaluate_every=1.0, loggers=[]),
        "engine": stalegrid.EngineSettings(on_loss="continue", deadline=20.0),
    }
    return grouped(Settings, given | changes, SHORT)


def membership_of(result: Result) -> Membership:
    return Membership.of(result.summary)


# Planning forwards copies of the model some times, so that training begins at a forward of a higher number.
@pytest.mark.parametrize(("how", "after"), [(signal.SIGKILL, 14), (signal.SIGKILL, 27), (signal.SIGSTOP, 20)])
@pytest.mark.timeout(180)
def test_a_grid_that_loses_a_group_ends_as_its_replay_does(how: int, after: int, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "mark", after, how)
    result = execute(task_of(trap), settings_of(tmp_path / "run"), quiet=True)
    (loss,) = membership_of(result).lost
    assert loss.group in range(3)
    assert loss.version % 5 == 0
    assert 0 < loss.version <= after
    assert result.summary["version"] == 40
    again = relive(task_of(), settings_of(), membership_of(result), tmp_path / "again", quiet=True)
    check_same(result, again)
    found = replay(task_of(), settings_of(tmp_path / "run"), tmp_path / "run", quiet=True)
    assert found.equal


def lost(*pairs: tuple[int, int]) -> Membership:
    return Membership(tuple(LostGroup(group, version, "") for group, version in pairs))


@pytest.mark.parametrize("kind", ["combine-while-adapt", "adapt-then-combine", "all-reduce"])
def test_what_is_left_is_a_grid_of_its_own(kind: str, tmp_path: Path) -> None:
    mixing = stalegrid.MixingSettings(kind=kind, topology="complete")
    result = relive(task_of(), settings_of(mixing=mixing), lost((1, 10), (0, 25)), tmp_path / "run", quiet=True)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    groups = {r["update"]: sorted({unit[1] for unit in r["staleness"]}) for r in records if r["kind"] == "train"}
    assert {update: who for update, who in groups.items() if update in (10, 12, 24, 26)} == {
        10: ["0", "1", "2"],
        12: ["0", "2"],
        24: ["0", "2"],
        26: ["2"],
    }
    # Passes over the data, of which an update of one of three groups trains a third.
    epochs = {r["update"]: r["epoch"] for r in records if r["kind"] == "train"}
    assert epochs[40] == pytest.approx((10 + 15 * 2 / 3 + 15 / 3) / (len(images()) // 12))
    assert [loss.group for loss in membership_of(result).lost] == [1, 0]


def test_a_run_that_lost_a_group_is_resumed_without_it(tmp_path: Path) -> None:
    whole = relive(task_of(), settings_of(), lost((2, 10)), tmp_path / "run", quiet=True)
    again = execute(
        task_of(),
        settings_of(tmp_path / "run", engine="simulator"),
        resume=tmp_path / "run" / "checkpoints" / "000000010",
        membership=lost((2, 10)),
        quiet=True,
    )
    saved = tmp_path / "run" / "checkpoints" / "000000030"
    assert not (saved / "group-2-stage-0.json").exists()
    resumed = execute(task_of(), settings_of(tmp_path / "run", engine="simulator"), resume=saved, quiet=True)
    assert membership_of(resumed) == lost((2, 10))
    assert resumed.summary["version"] == again.summary["version"] == whole.summary["version"]
    check_same(resumed, again)


def test_weights_close_around_who_is_gone() -> None:
    ring = mixing_matrix("ring", 4)
    left = ring.without([1])
    path = mixing_matrix("0-1,1-2", 3).weights(0)  # 2, 3, 0 in a row
    order = [2, 3, 0]
    assert np.array_equal(left.weights(0)[np.ix_(order, order)], path)
    assert left.sources(1, 0) == ()
    assert left.targets(1, 0) == ()
    assert left.sources(0, 0) == (3,)
    assert left.spectral_gap == MixingMatrix((path,)).spectral_gap
    assert np.array_equal(mixing_matrix("complete", 3).without([0, 1]).weights(0), np.eye(3))


@pytest.mark.parametrize(
    ("topology", "gone", "said"),
    [("star", 0, "not connected|split"), ("one-peer-exponential", 1, "another one in each turn")],
)
def test_a_graph_that_falls_apart_is_refused(topology: str, gone: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        mixing_matrix(topology, 4).without([gone])
    with pytest.raises(ConfigError, match="no group is left"):
        mixing_matrix(topology, 4).without(range(4))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "mixing", [{"lag_rule": "ema", "lag": 1, "period": 2}, {"lag_rule": "delta", "lag": 1, "topology": LAZY}], ids=str
)
def test_lag_rules_that_do_not_know_who_is_left_are_refused_at_the_start(
    mixing: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"groups that are left may drift apart.*engine.on_loss: continue"):
        execute(task_of(), settings_of(tmp_path / "run", mixing=stalegrid.MixingSettings(**mixing)), quiet=True)
    assert not (tmp_path / "run").exists()


def test_without_a_checkpoint_or_a_word_the_loss_of_a_group_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint: none\); say how often"):
        execute(task_of(), settings_of(tmp_path / "a", checkpoint=stalegrid.CheckpointSettings()), quiet=True)
    trap = Trap(tmp_path / "mark", 20, signal.SIGKILL)
    with pytest.raises(EngineError, match="ended without a word") as caught:
        execute(task_of(trap), settings_of(tmp_path / "b", engine="processes"), quiet=True)
    assert not isinstance(caught.value, GroupLost)
    assert (tmp_path / "b" / "checkpoints").is_dir()
