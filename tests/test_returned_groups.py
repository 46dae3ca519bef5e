"""A group that was lost comes back: it begins with a neighbour's state, and from then on trains what is its own."""

import copy
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import stalegrid
from stalegrid.checkpoints.layout import FOLDER
from stalegrid.checkpoints.returning import ask_back, asked_back
from stalegrid.cli import main
from stalegrid.config import Settings
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.mixing import Turns
from stalegrid.consensus.rounds import Averaging
from stalegrid.observe.folder import UNITS
from stalegrid.plans.material import make_batches
from stalegrid.plans.membership import ALL, LostGroup, Membership, ReturnedGroup
from stalegrid.plans.task import Task
from stalegrid.programs.grid import Unit
from stalegrid.programs.pipeline import Back
from stalegrid.runs import Result, execute
from stalegrid.seeds import generator
from stalegrid.studies.losing import relive
from stalegrid.studies.reference.grid import part
from stalegrid.studies.replaying import replay
from tests.cases import CUTS, OPTIMIZERS, Net, build, images, make_plan
from tests.test_lost_groups import Trap, settings_of
from tests.test_lost_groups import task_of as trapped
from tests.test_stopped import check_same

pytestmark = pytest.mark.thorough

LOST, BACK, END, LATER = 10, 20, 30, 25
AWAY = Membership((LostGroup(1, LOST, "gone"),), (ReturnedGroup(1, BACK, 0),))


def task_of(**changes: Any) -> Task:
    given: dict[str, Any] = {
        "model": build(partial(Net, plain=True)),
        "data": images(),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
        "scheduler": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=END),
    }
    return Task(**given | changes)


def asked(folder: Path, **changes: Any) -> Settings:
    """Return settings of a run on the simulator that is saved every fifth version."""
    output = replace(settings_of().output, folder=folder)
    checkpoint = stalegrid.CheckpointSettings(every=5, keep=99)
    return settings_of(**{"updates": END, "engine": "simulator", "output": output, "checkpoint": checkpoint} | changes)


def lived(task: Task, settings: Settings, membership: Membership = AWAY) -> Result:
    """Train through all that happens."""
    known, source, folder = ALL, None, settings.output.folder
    assert folder is not None
    for version in membership.versions:
        execute(task, settings, resume=source, membership=known, quiet=True, keep_units=True)
        known, source = membership.until(version), folder / FOLDER / f"{version:09d}"
    return execute(task, settings, resume=source, membership=known, quiet=True, keep_units=True)


class Alone:
    """A group of one stage, as anybody would train it."""

    def __init__(self, task: Task) -> None:
        self.model = copy.deepcopy(task.model)
        self.optimizer = task.optimizer(list(self.model.parameters()))
        self.scheduler = task.scheduler(self.optimizer)
        self.past: dict[int, list[Tensor]] = {}
        self.begins = 0

    def begin_as(self, other: "Alone", version: int) -> None:
        self.model.load_state_dict(other.model.state_dict())
        self.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))
        self.scheduler.load_state_dict(copy.deepcopy(other.scheduler.state_dict()))
        self.past, self.begins = {}, version

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]

    def gradient(self, version: int, loss: Any) -> list[Tensor]:
        now = self.weights()
        self._set(self.past[version])
        made = torch.autograd.grad(loss(self.model), list(self.model.parameters()))
        self._set(now)
        return list(made)

    def step(self, gradient: list[Tensor]) -> None:
        for p, g in zip(self.model.parameters(), gradient, strict=True):
            p.grad = g.clone()
        self.optimizer.step()
        self.scheduler.step()

    def add(self, deltas: list[Tensor]) -> None:
        self._set([p + d for p, d in zip(self.weights(), deltas, strict=True)])

    def _set(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for p, value in zip(self.model.parameters(), values, strict=True):
                p.copy_(value)


def loop(task: Task, settings: Settings, groups: int, staleness: int) -> list[Alone]:
    """Train groups that average with all others, of which number 1 is away for a while."""
    mixing = settings.mixing
    kind, lag, period, parts = mixing.kind, mixing.lag or 0, mixing.period or 1, round(1 / (mixing.sparse or 1.0))
    samples = make_batches(task, settings.training, groups, 1)
    every = [Alone(task) for _ in range(groups)]
    shared: dict[tuple[int, int], list[Tensor]] = {}
    for n in range(END):
        if n == BACK:
            every[1].begin_as(every[0], BACK)
        there = [s for s in range(groups) if s != 1 or not LOST <= n < BACK]
        weigh = [s for s in there if n >= every[s].begins + lag and n >= lag]
        gradients = {}
        for s in there:
            one = every[s]
            one.past[n] = one.weights()
            x, y = samples.inputs(s, n), samples.targets(s, n)
            version = max(one.begins, n - staleness)
            gradients[s] = one.gradient(version, lambda model, x=x, y=y: task.loss(model(*x), y))
        if kind == "all-reduce":
            each = zip(*gradients.values(), strict=True)
            means = [sum(some[1:], torch.zeros_like(some[0]) + some[0]) / len(there) for some in each]
            gradients = dict.fromkeys(there, means)
        if kind == "combine-while-adapt":
            shared.update({(s, n): every[s].weights() for s in there})
        for s in there:
            every[s].step(gradients[s])
        if kind == "adapt-then-combine":
            shared.update({(s, n): every[s].weights() for s in there})
        mixes = kind not in ("all-reduce", "none") and (n + 1) % period == 0
        cycle, turn = divmod((n + 1) // period - (lag + period) // period, parts)  # counted from the first that mixes
        for s in weigh if mixes else ():
            dealt = generator(settings.training.seed, "parts", 0, cycle)
            measured = shared[s, n - lag if mixing.lag_rule == "delta" else n]
            deltas = [torch.zeros_like(p) for p in measured]
            for r in weigh:
                if r != s:
                    for delta, theirs, own in zip(deltas, shared[r, n - lag], measured, strict=True):
                        delta += (theirs - own) * (1 / len(weigh))
            here = [part(delta, parts, turn, dealt) if parts > 1 else torch.ones_like(delta) > 0 for delta in deltas]
            every[s].add([torch.where(own, delta, 0.0) for own, delta in zip(here, deltas, strict=True)])
    return every


@pytest.mark.parametrize(
    ("kind", "lag", "rule", "staleness"),
    [
        ("none", 0, {}, 2),
        ("adapt-then-combine", 0, {}, 0),
        ("adapt-then-combine", 2, {}, 2),
        ("combine-while-adapt", 3, {}, 0),
        ("combine-while-adapt", 3, {}, 2),
        ("combine-while-adapt", 2, {"lag_rule": "delta", "period": 3}, 2),
        ("adapt-then-combine", 2, {"sparse": 0.25}, 2),
        ("all-reduce", 0, {}, 0),
    ],
)
def test_a_group_that_came_back_is_as_in_a_plain_loop(
    kind: str, lag: int, rule: dict[str, Any], staleness: int, tmp_path: Path
) -> None:
    task, mixing = task_of(), stalegrid.MixingSettings(kind=kind, topology="complete", lag=lag, **rule)
    options: dict[str, Any] = {"stages": 1, "cuts": [], "staleness": [staleness], "mixing": mixing}
    settings = asked(tmp_path / "run", **options)
    expected = loop(task, settings, 3, staleness)
    lived(task, settings)
    found = load_file(tmp_path / "run" / UNITS)
    entries = make_plan(task, settings).stages[0].entries
    for s, one in enumerate(expected):
        vector, state = found[str(Unit(s, 0))], one.model.state_dict()
        for entry in entries:
            assert torch.equal(vector.as_strided(entry.shape, entry.stride, entry.offset), state[entry.name]), entry


WAYS: dict[str, dict[str, Any]] = {
    "a deep pipeline": {"stages": 3, "cuts": CUTS[3], "staleness": [4, 2, 0]},
    "a view that keeps the version before": {"method": "pipedream-2bw", "micro_batches": 4},
    "a view that remembers": {"method": "pipemare"},
    "prediction": {"method": "spectrain"},
    "two forwards": {"method": "features-replay"},
    "another optimizer": {"method": "async-nesterov"},
    "micro-batches and momentum": {"staleness": [5, 1], "micro_batches": 2, "mixing": {"momentum": True}},
    "all-reduce and a correction that remembers": {
        "mixing": {"kind": "all-reduce", "lag": 0, "period": 1},
        "corrections": ["gap-aware"],
    },
    "a flush": {"method": "gpipe", "micro_batches": 2},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_to_which_a_group_came_back_goes_on_to_the_bit(way: str, tmp_path: Path) -> None:
    given = dict(WAYS[way])
    mixing = {"kind": "adapt-then-combine", "topology": "ring", "lag": 2, "period": 2} | given.pop("mixing", {})
    task = task_of(model=build(Net), optimizer=OPTIMIZERS.get(given.get("method", ""), task_of().optimizer))
    folder, given["mixing"] = tmp_path / "run", stalegrid.MixingSettings(**mixing)
    whole = lived(task, asked(folder, **given))
    assert Membership.of(whole.summary) == AWAY
    shutil.copytree(folder, tmp_path / "whole")
    whole = replace(whole, folder=tmp_path / "whole")
    for engine in ("simulator", "processes") if way == "a deep pipeline" else ("simulator",):
        saved = folder / FOLDER / f"{LATER:09d}"
        check_same(execute(task, asked(folder, engine=engine, **given), resume=saved, quiet=True), whole)
    again = relive(task, settings_of(updates=END, **given), AWAY, tmp_path / "again", quiet=True)
    check_same(again, whole)


class Asking(stalegrid.Callback):
    """Asks for lost groups back, and for the end a while after they came."""

    def __init__(self, groups: int) -> None:
        self.groups, self.asked, self.folder, self.since = groups, False, Path(), 0

    def on_start(self, folder: Path) -> None:
        self.folder = folder

    def on_report(self, record: dict[str, Any]) -> bool:
        there = len(record["group_loss"])
        if there < self.groups and not self.asked:
            self.asked = True
            assert main(["join", str(self.folder)]) == 0
        self.since = self.since or (record["update"] if self.asked and there == self.groups else 0)
        return bool(self.since) and record["update"] >= self.since + 20


@pytest.mark.timeout(240)
def test_a_group_that_was_killed_comes_back_to_a_run_that_goes_on(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "mark", 14, signal.SIGKILL)
    output = replace(settings_of().output, folder=tmp_path / "run")
    settings = settings_of(updates=100_000, output=output)
    result = execute(trapped(trap), settings, callbacks=[Asking(3)], quiet=True)
    membership = Membership.of(result.summary)
    (lost,), (back,) = membership.lost, membership.returned
    assert (lost.group, lost.version) < (back.group, back.version)
    assert back.donor == min({0, 1, 2} - {lost.group})
    assert not membership.gone
    settings = replace(settings, training=replace(settings.training, until=result.summary["version"]))
    found = replay(trapped(), settings, tmp_path / "run", quiet=True)
    assert found.equal


def test_whoever_asks_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    settings = asked(run, stages=1, cuts=[])
    lived(task_of(), settings, AWAY.until(LOST))
    (run / FOLDER / "ended").unlink()
    assert main(["join", str(run), "--groups", "0"]) == 0
    assert "when the run goes on" in capsys.readouterr().out
    saved = run / FOLDER / f"{BACK:09d}"
    execute(task_of(), settings, resume=saved, quiet=True)
    assert "no such group is lost (asked for: 0, lost: 1)" in capsys.readouterr().err
    ask_back(run / FOLDER, None)
    (run / FOLDER / "ended").unlink()
    result = execute(task_of(), settings, resume=saved, quiet=True)
    assert Membership.of(result.summary).back == {1: Back(BACK, 0)}
    assert f"group 1 is back from version {BACK}" in capsys.readouterr().err
    assert asked_back(run / FOLDER, [1]) is None
    assert main(["join", str(run)]) == 2
    assert "has come to its end" in capsys.readouterr().err


def test_who_comes_back_counts_once_what_it_sent_is_there() -> None:
    turns = Turns(mixing_matrix("complete", 3), period=2, lag=3, updates=40).only(frozenset(), ((1, 10),))
    # Turn t mixes in update 2 t + 1, with what was sent three updates before.
    assert [turns.mixing.sources(0, turn) for turn in (4, 5, 6, 7)] == [(2,), (2,), (1, 2), (1, 2)]
    assert [turns.mixing.sources(1, turn) for turn in (4, 5, 6)] == [(), (), (0, 2)]
    assert turns.mixing.neighbours(0) == (1, 2)


def test_who_comes_back_counts_once_what_it_sent_is_there_in_every_stage() -> None:
    turns = Turns(mixing_matrix("complete", 3), period=4, lag=1, updates=40, fragments=2)
    back = turns.only(frozenset(), ((1, 10),))
    # Stage 0 mixes in updates 11, 15 and so on, stage 1 in updates 9, 13: both for the first time in turn 3.
    rounds = Averaging(back.mixing, True, 4, 1, 40, fragments=2)
    first = {k: next(n for n in range(40) if (rounds.turn(n, k) or 0) >= 3) for k in (0, 1)}
    assert first == {0: 15, 1: 13}
    assert [back.mixing.sources(0, turn) for turn in (2, 3)] == [(2,), (1, 2)]


def test_what_was_left_out_is_counted() -> None:
    twice = AWAY.losing([1, 2], 30, "").returning({1: 0}, 33)
    assert (twice.gone, dict(twice.back)) == (frozenset({2}), {1: Back(33, 0)})
    assert [twice.left_out(version, (1, 1, 1, 1)) for version in (5, 15, 25, 31, 40)] == [0, 5, 10, 12, 10 + 3 + 10]
    assert twice.until(25) == AWAY
    assert Membership.of(twice.plain()) == twice
    assert ALL.plain() == {}
