"""What mixings cannot be combined with is refused, with a reason, before anything starts."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.consensus.choose import choose_mixing, turns_of
from stalegrid.consensus.mixings import MIXINGS, Diffusion, Push, Tracked
from stalegrid.consensus.settings import MixingSettings
from stalegrid.errors import ConfigError
from stalegrid.plans.membership import LostGroup, Membership
from stalegrid.programs.grid import Unit
from tests.cases import build, make_plan, make_settings, make_task, train

RULES = [Push(), Diffusion(), Tracked()]
KNOWN = {"fragments", "random pairs", "period", "lag", "momentum", "turns", "lost groups", "sums", "sparse gradients"}


def test_whatever_is_refused_is_looked_for_and_has_a_reason() -> None:
    for mixing in MIXINGS:
        assert mixing.refuses.keys() <= KNOWN
        assert all(reason.strip() for reason in mixing.refuses.values())
        for what in KNOWN - mixing.refuses.keys():
            mixing.refuse(what, "")


@pytest.mark.parametrize(
    ("kind", "turns", "message"),
    [
        ("push-sum", {"lag": 1}, r"push-sum adds up .* under way; leave the lag out \(mixing.lag: 1\)"),
        ("exact-diffusion", {"lag": 2}, r"exact-diffusion cancels .*; leave the lag out \(mixing.lag: 2\)"),
        ("exact-diffusion", {"period": 4}, r"not published for rarer rounds; .*gradient-tracking \(mixing.period: 4\)"),
        ("exact-diffusion", {"topology": "one-peer-exponential"}, r"one symmetric matrix .*\(matrices in turn: 2\)"),
        ("gradient-tracking", {"lag": 1}, r"gradient-tracking needs .*; leave the lag out \(mixing.lag: 1\)"),
        ("gradient-tracking", {"period": 20}, r"would never mix \(period: 20, lag: 0, updates: 10\)"),
        ("push-sum", {"period": 0}, r"the mixing period counts updates from 1 \(period: 0\)"),
        ("push-sum", {"topology": "0>1,1>2,2>3"}, r"what groups \[3\] hold never comes to \[0, 1, 2\]"),
        ("exact-diffusion", {"topology": "0>1,1>2,2>3,3>0"}, "edges are not symmetric: .*or take mixing push-sum"),
    ],
)
def test_turns_that_make_no_sense_are_refused(kind: str, turns: dict[str, Any], message: str) -> None:
    asked = MixingSettings(kind=kind, **turns)
    mixing = choose_mixing(asked, "none", "pham-ahn", 4)
    with pytest.raises(ConfigError, match=message):
        mixing.lateral(turns_of(asked, 4, 10, mixing=mixing))


@pytest.mark.parametrize("mixing", RULES, ids=lambda m: m.name)
def test_momentum_is_not_mixed_and_one_group_has_nobody_to_mix_with(mixing: Any) -> None:
    asked = MixingSettings(kind=mixing.name, momentum=True)
    with pytest.raises(ConfigError, match=r"leave mixing momentum out \(mixing.momentum: true\)"):
        choose_mixing(asked, "none", "pham-ahn", 2)
    assert choose_mixing(asked, "none", "pham-ahn", 1).name == "none"


def test_push_sum_refuses_batches_of_unlike_sizes() -> None:
    with pytest.raises(ConfigError, match=r"keeps the plain mean .*\(batch_size: 4,2\); take batches of one size"):
        make_plan(make_task(), make_settings(2, 1, mixing="push-sum", batch_size=[4, 2]))


def summed(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return nn.functional.cross_entropy(scores, targets, reduction="sum"), torch.tensor(len(targets))


class Words(nn.Sequential):
    """Has sparse gradients."""

    def __init__(self) -> None:
        super().__init__(nn.Embedding(9, 6, sparse=True), nn.Flatten(), nn.Linear(24, 3))


def test_tracking_refuses_sums_and_sparse_gradients() -> None:
    settings = make_settings(2, 1, mixing="gradient-tracking")
    with pytest.raises(ConfigError, match=r"tracks means over a batch, and knows no counts"):
        make_plan(make_task(loss=summed), settings)
    data = TensorDataset(torch.arange(200).view(50, 4) % 9, torch.arange(50) % 3)
    task = make_task(model=build(Words), data=data, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), scheduler=None)
    with pytest.raises(ConfigError, match=r"a gradient is sparse, but .*tracking"):
        make_plan(task, settings)
    assert make_plan(task, make_settings(2, 1, mixing="exact-diffusion")).mixing.name == "exact-diffusion"


@pytest.mark.parametrize("mixing", RULES, ids=lambda m: m.name)
def test_none_goes_on_without_a_lost_group(mixing: Any, tmp_path: Any) -> None:
    settings = make_settings(2, 1, mixing=mixing.name)
    with pytest.raises(ConfigError, match=rf"{mixing.name} .*take adapt-then-combine \(engine.on_loss: continue\)"):
        make_plan(make_task(), settings).among(Membership((LostGroup(1, 4, ""),)))
    with pytest.raises(ConfigError, match=rf"{mixing.name} .*\(engine.on_loss: continue\)"):
        train(
            build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 3))),
            make_task().data,
            loss=nn.CrossEntropyLoss(),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
            groups=2,
            method="pham-ahn",
            stages=1,
            mixing=mixing.name,
            batch_size=4,
            engine=stalegrid.EngineSettings(kind="simulator", on_loss="continue"),
            checkpoint=stalegrid.CheckpointSettings(every=2),
            out=tmp_path / "run",
            quiet=True,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mixing", RULES, ids=lambda m: m.name)
def test_a_plan_counts_the_vectors_that_a_mixing_keeps_and_sends(mixing: Any) -> None:
    plain = make_plan(make_task(), make_settings(2, 2, mixing="adapt-then-combine"))
    plan = make_plan(make_task(), make_settings(2, 2, mixing=mixing.name))
    assert plan.spectral_gap == plain.spectral_gap == 1.0
    for k, read in enumerate(plan.stages):
        assert plan.held[k] - plain.held[k] == mixing.keeps * read.trained * 4
        edges = [edge for edge in plan.program.inbound(Unit(0, k)) if edge.source == Unit(1, k)]
        (edge,) = edges
        tracked = read.trained + read.parameters if isinstance(mixing, Tracked) else 0
        assert plan.nbytes(edge) == (read.mixed + tracked) * 4
