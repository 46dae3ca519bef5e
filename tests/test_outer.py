"""Runs with outer optimizers: what they are equal to, what they tell, how they go on, and what is refused."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, AdamW

import stalegrid
from stalegrid.checkpoints.layout import FOLDER
from stalegrid.data import Batches
from stalegrid.errors import ConfigError
from stalegrid.observe import METRICS
from stalegrid.plans.telling import facts, headline
from tests.cases import (
    CUTS,
    Net,
    build,
    images,
    make_plan,
    make_settings,
    make_task,
    record_simulator,
    run_simulator,
)
from tests.test_resumed_grids import copied
from tests.test_stopped import check_same
from tests.test_unlike_sizes import data_of

RHO, RATE = "rho_1", "effective_outer_rate"


def train(out: Path | None = None, **changes: Any) -> stalegrid.Result:
    options: dict[str, Any] = {
        "groups": 2,
        "stages": 2,
        "cuts": CUTS[2],
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(SGD, lr=0.1, momentum=0.9),
        "mixing": stalegrid.MixingSettings(kind="outer,keep=0.5", period=4, lag=2, fragments=True),
        "test": images(13),
        "batch_size": 4,
        "updates": 13,
        "engine": "simulator",
        "quiet": True,
        "output": stalegrid.OutputSettings(folder=out, log_every=3),
        "checkpoint": stalegrid.CheckpointSettings(every=5, keep=100) if out is not None else None,
    }
    given = {name: value for name, value in (options | changes).items() if value is not None}
    return stalegrid.train(build(Net), images(), **given)


def test_the_mean_at_every_update_is_averaging() -> None:
    # Not to the bit: saved - (saved - mean) rounds twice, and averaging adds gaps to a group's own vector.
    task, settings = make_task(), partial(make_settings, 3, 2, dtype="float64", topology="complete")
    outer = run_simulator(task, settings(mixing="outer,rate=1,momentum=0,keep=0"))
    mean = run_simulator(task, settings(mixing="adapt-then-combine"))
    for key, value in outer.parameters.items():
        torch.testing.assert_close(value, mean.parameters[key], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.tensor(outer.losses), torch.tensor(mean.losses), rtol=1e-9, atol=1e-12)


def test_keeping_everything_groups_never_meet() -> None:
    # outer + (w - outer) is w to rounding.
    task, settings = make_task(), partial(make_settings, 2, 1, dtype="float64")
    kept, apart = run_simulator(task, settings(mixing="outer,keep=1")), run_simulator(task, settings(mixing="none"))
    for (s, name), value in apart.parameters.items():
        if "running" not in name:
            torch.testing.assert_close(kept.parameters[s, name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_it_is_torchs_own_sgd_over_a_loop_of_each_group(groups: int) -> None:
    # torch's SGD multiplies and adds at once, which rounds otherwise.
    torch.manual_seed(2)
    data, start = data_of(), nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    data.tensors = data.tensors[0].double(), data.tensors[1]
    inner = partial(AdamW, lr=0.01)
    result = stalegrid.train(
        copy.deepcopy(start),
        data,
        loss=nn.CrossEntropyLoss(),
        optimizer=inner,
        method="snoo" if groups == 1 else "diloco",
        mixing=stalegrid.MixingSettings(period=3),
        batch_size=4,
        updates=9,
        engine="simulator",
        dtype="float64",
        quiet=True,
    )
    model = start.double()
    locals_ = [copy.deepcopy(model) for _ in range(groups)]
    optimizers = [inner(own.parameters()) for own in locals_]
    outer = SGD(model.parameters(), lr=0.7, momentum=0.9, nesterov=True)
    samples = Batches(data, groups=groups, batch_size=4, seed=0)
    for n in range(9):
        for s, (own, optimizer) in enumerate(zip(locals_, optimizers, strict=True)):
            optimizer.zero_grad()
            F.cross_entropy(own(samples.inputs(s, n)[0]), samples.targets(s, n)).backward()
            optimizer.step()
        if (n + 1) % 3 == 0:
            for p, *others in zip(model.parameters(), *(own.parameters() for own in locals_), strict=True):
                p.grad = p.detach() - torch.stack([other.detach() for other in others]).mean(0)
            outer.step()
            for own in locals_:
                own.load_state_dict(model.state_dict())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], value, rtol=1e-9, atol=1e-12)


def test_what_is_measured_is_told_by_all_that_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(tmp_path / "run", quiet=False, updates=12)
    lines = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    reports = [line["told"] for line in lines if line["kind"] == "train"]
    assert [set(told) for told in reports] == [{"(0,0)", "(0,1)", "(1,0)", "(1,1)"}] * len(reports)
    # Stage 1 mixes in updates 5 and 9, stage 0 in 3, 7 and 11; each tells of two from its second turn on.
    assert [told["(0,1)"][RHO] is not None for told in reports] == [False, False, False, True]
    assert [told["(0,0)"][RHO] is not None for told in reports] == [False, False, True, True]
    for told in reports:
        for numbers in told.values():
            rho = numbers[RHO]
            assert rho is None or (-1 <= rho <= 1 and numbers[RATE] == pytest.approx(0.7 * (1 + 0.9 / (1 - 0.9 * rho))))
        # All groups have the same mean.
        assert all(told[f"(0,{k})"] == told[f"(1,{k})"] for k in (0, 1))
    assert -1 <= result.summary["told"][RHO] <= 1
    assert result.summary["told"][RATE] > 0
    assert f" {RHO} " in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["outer,keep=0.5", "noloco"])
def test_a_run_goes_on_to_the_bit(kind: str, tmp_path: Path) -> None:
    lag = 2 if kind != "noloco" else 0
    changes = {"mixing": stalegrid.MixingSettings(kind=kind, period=4, lag=lag, fragments=True)}
    whole = train(tmp_path / "run", **changes)
    for version in (5, 10):
        with copied(tmp_path / "run", version) as source:
            check_same(train(source.parent.parent, resume=source, **changes), whole)


def test_numbers_of_another_run_are_no_longer_those_of_a_checkpoint(tmp_path: Path) -> None:
    train(tmp_path / "run")
    with pytest.raises(ConfigError, match="mixing"):
        train(
            tmp_path / "run",
            resume=tmp_path / "run" / FOLDER / "000000005",
            mixing=stalegrid.MixingSettings(kind="outer,keep=0.25", period=4, lag=2, fragments=True),
        )


def test_in_another_shape_all_begin_from_the_mean(tmp_path: Path) -> None:
    train(tmp_path / "run", checkpoint=stalegrid.CheckpointSettings(every=5, keep=100))
    shape: dict[str, Any] = {
        "stages": 1,
        "cuts": [],
        "reshape": True,
        "resume": tmp_path / "run" / FOLDER / "000000005",
    }
    assert train(tmp_path / "outer", **shape).summary["start"]["groups"] == "mean"
    averaged = {"mixing": stalegrid.MixingSettings(kind="adapt-then-combine")}
    assert train(tmp_path / "averaged", **shape, **averaged).summary["start"]["groups"] == "own"


def test_groups_that_are_lost_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"outer remembers .*\(engine.on_loss: continue\)"):
        train(tmp_path / "run", engine=stalegrid.EngineSettings(kind="processes", on_loss="continue"))


def test_a_plan_says_what_is_kept() -> None:
    task = make_task()
    plan = make_plan(task, make_settings(1, 2, mixing="outer,rate=0.5", period=2))
    assert facts(plan)["remembered_at_most"] == [3 * read.trained * 4 for read in plan.stages]
    assert "mixing outer,rate=0.5" in headline(plan, "simulator", 1)
    assert facts(make_plan(task, make_settings(2, 2)))["remembered_at_most"] == [0, 0]


def test_pairs_are_drawn_by_the_seed_of_the_run() -> None:
    def distances(seed: int) -> list[float]:
        changes = {"mixing": "noloco", "evaluate_every": 0.1, "seed": seed}
        return [
            e["consensus_distance"] for e in record_simulator(make_task(), make_settings(4, 1, **changes)).evaluations
        ]

    assert distances(3) == distances(3) != distances(4)


@pytest.mark.parametrize("method", ["diloco", "streaming-diloco", "noloco"])
def test_a_published_method_says_when_groups_mix(method: str) -> None:
    with pytest.raises(ConfigError, match=r"would never mix \(period: [15]00, .*mix more often \(mixing.period\)"):
        make_plan(make_task(), make_settings(2, 1, method=method))
