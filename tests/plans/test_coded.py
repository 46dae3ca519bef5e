"""What is coded of a run, what travels then, and which codecs are refused."""

from typing import Any

import pytest
import torch
from torch import nn

import stalegrid
from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.plans.telling import facts, headline
from stalegrid.programs import OBSERVER, Edge, Unit
from tests.cases import Net, build, flat, images, make_plan, make_settings, make_task, plan_of

CODED = {"activation": "int8", "gradient": "topk=0.1,feedback", "parameters": "bf16"}


def test_layouts_are_what_travels_and_bytes_follow() -> None:
    plain, coded = make_plan(make_task(), make_settings(2, 3)), make_plan(make_task(), make_settings(2, 3, **CODED))
    shares = {"activation": 0.3, "gradient": 0.25, "parameters": 0.65}
    for edge in plain.messages.edges():
        assert coded.nbytes(edge) < shares[edge.name] * plain.nbytes(edge), edge
    types: dict[str, set[torch.dtype]] = {}
    for edge in coded.messages.edges():
        types.setdefault(edge.name, set()).update(spec.dtype for spec in coded.layout(edge))
    assert types["activation"] == {torch.int8, torch.float16, torch.int16}
    assert types["gradient"] == {torch.float32, torch.int32, torch.uint8}
    assert types["parameters"] == {torch.bfloat16, torch.float32}  # statistics are exact


def test_the_observer_is_told_all() -> None:
    plain, coded = make_plan(make_task(), make_settings(2, 3)), make_plan(make_task(), make_settings(2, 3, **CODED))
    for name in ("report", "snapshot"):
        edge = Edge(name, Unit(1, 1), OBSERVER)
        assert coded.messages.coding(edge) is None
        assert coded.layouts(edge) == plain.layouts(edge)


def test_flags_and_counts_are_exact() -> None:
    class Summed(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return nn.functional.cross_entropy(x, y, reduction="sum"), torch.tensor(float(len(x)))

    settings = make_settings(2, 2, gradient="int8", all_reduce="topk=0.5", mixing="all-reduce")
    plan = make_plan(make_task(loss=Summed()), settings)
    assert plan.sums
    gradient, part = Edge("gradient", Unit(0, 1), Unit(0, 0)), Edge("gradient-part", Unit(0, 0), Unit(1, 0))
    assert [s.dtype for s in plan.layout(gradient)][-2:] == [torch.uint8, torch.float64]
    assert plan.layout(part)[-1].dtype == torch.float64
    vector = plan.trainable[0] + plan.stages[0].parameters
    spans = [plan.messages.coding(Edge("gradient-part", Unit(1 - s, 0), Unit(s, 0))) for s in (0, 1)]
    found = [one.spans[0] for one in spans if one is not None]
    assert [len(span) for span in found] == [2, 2]
    assert found[0][0] == vector - vector // 2
    assert found[0][0] + found[1][0] == plan.trainable[0]


def test_what_is_remembered_is_told() -> None:
    plan = make_plan(make_task(), make_settings(3, 2, activation="bf16,feedback", mixing="choco,gamma=0.5"))
    sent = sum(s.nbytes for s in plan.partition.crossing(0)[0])
    trained = plan.stages[0].trained * 4
    assert plan.messages.remembered(0) == sent + 4 * trained  # xh of three groups, and what was sent
    told = facts(plan)
    assert told["codecs"] == {"activation": "bf16,feedback"}
    assert told["remembered_at_most"] == [plan.messages.remembered(0), plan.messages.remembered(1)]
    assert "; codecs activation bf16,feedback; of what is held " in headline(plan, "simulator", 1)
    assert "remembering" not in headline(make_plan(make_task(), make_settings(2, 2)), "simulator", 1)


class Mine(stalegrid.AdaptThenCombine):
    pass


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "parameters that are left out": (
        {"groups": 2, "parameters": "topk=0.1"},
        r"not sent would count as 0 \(codec.parameters: topk=0.1, mixing: combine-while-adapt\); take mixing choco",
    ),
    "feedback twice": (
        {"groups": 2, "mixing": "choco", "parameters": "int8,feedback"},
        r"choco sends what was lost by itself \(codec.parameters: int8,feedback\); leave feedback out",
    ),
    "momentum": (
        {"groups": 2, "parameters": "bf16", "momentum": True},
        r"how momentum is coded \(mixing.momentum: true, mixing: combine-while-adapt\)",
    ),
    "momentum in choco": ({"groups": 2, "mixing": "choco", "momentum": True}, "how momentum is coded"),
    "no such edge": (
        {"groups": 2, "stages": 1, "activation": "bf16"},
        r"no message of the run is of the kind that has a codec \(codec.activation: bf16, mixing: comb.*leave it out",
    ),
    "no all-reduce": ({"groups": 2, "all_reduce": "bf16"}, r"no message of the run.*codec.all_reduce: bf16"),
    "one group": ({"parameters": "bf16", "stages": 2}, r"no message of the run.*codec.parameters: bf16"),
    "a mixing of one's own": (
        {"groups": 2, "mixing": Mine, "parameters": "bf16"},
        r"a mixing of your own says what it sends.*codec.parameters: bf16, mixing: .*Mine",
    ),
    "choco with a lag": ({"groups": 2, "mixing": "choco", "lag": 1}, "no published form with a lag"),
    "choco with unlike groups": ({"groups": 2, "mixing": "choco", "batch_size": [4, 8]}, "takes groups to be alike"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        make_plan(make_task(), make_settings(given.get("groups", 1), given.get("stages", 2), **without(given)))


def without(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in ("groups", "stages")}


def test_servers_have_no_codecs() -> None:
    settings = flat(Settings, method="softsync", activation="bf16", updates=8, batch_size=4)
    with pytest.raises(ConfigError, match=r"not a grid \(codec.activation: bf16\); leave codec.activation out"):
        plan_of(make_task(), settings)


@pytest.mark.parametrize(("codec", "refused"), [("bf16,feedback", True), ("bf16", False)])
def test_feedback_takes_one_shape(codec: str, *, refused: bool) -> None:
    # 50 samples in batches of 4: the last of an epoch has 2.
    settings = make_settings(1, 2, activation=codec, drop_last=False, updates=13)
    if not refused:
        assert (
            len(make_plan(make_task(scheduler=None), settings).layouts(Edge("activation", Unit(0, 0), Unit(0, 1)))) == 2
        )
        return
    with pytest.raises(ConfigError, match=r"one of another shape \(codec.activation: bf16,feedback, shapes: 2\)"):
        make_plan(make_task(scheduler=None), settings)


@pytest.mark.parametrize(
    "options", [{"mixing": "choco"}, {"codec": stalegrid.CodecSettings(activation="int8,feedback")}]
)
def test_a_lost_group_leaves_nobody_who_knows_what_it_was_sent(options: dict[str, Any], tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"each other's former messages.*engine.on_loss: continue, mixing: "):
        stalegrid.train(
            build(Net),
            images(),
            loss=nn.CrossEntropyLoss(),
            optimizer=torch.optim.SGD,
            groups=2,
            stages=2,
            method="pham-ahn",
            engine=stalegrid.EngineSettings(on_loss="continue"),
            checkpoint=5,
            updates=10,
            batch_size=4,
            out=tmp_path / "run",
            quiet=True,
            **options,
        )
    assert not (tmp_path / "run").exists()
