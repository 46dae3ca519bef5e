"""Averaging in pairs, whenever the other one answers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stalegrid.checkpoints import CheckpointSettings
from stalegrid.consensus.pairwise import Drawn, PairAveraging
from stalegrid.errors import ConfigError
from stalegrid.observe import Callback
from stalegrid.programs import ANSWER, MEETINGS, QUESTION, Action, Edge, InStep, Kind, Message, Tag, Unit
from stalegrid.runs import execute
from stalegrid.stages import Weights
from stalegrid.studies import replay
from stalegrid.studies.verifying import verify
from tests.cases import hold_to_the_loop, make_settings, make_task

GRIDS = [(2, 1), (2, 2), (3, 2), (3, 3)]


def settings(groups: int = 3, stages: int = 2, **changes: Any) -> Any:
    return make_settings(groups, stages, **{"method": "ad-psgd", "engine": "simulator", **changes})


@pytest.mark.parametrize(("groups", "stages", "view"), [(2, 1, "stashed"), (3, 2, "current")])
def test_the_simulator_computes_what_the_plain_loop_does(groups: int, stages: int, view: str) -> None:
    hold_to_the_loop(make_task(), settings(groups, stages, view=view))


@pytest.mark.thorough
@pytest.mark.parametrize("view", ["stashed", "current"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("groups", "stages"), GRIDS)
def test_so_it_does_on_every_grid(groups: int, stages: int, view: str, dtype: str) -> None:
    hold_to_the_loop(make_task(), settings(groups, stages, view=view, dtype=dtype))


@pytest.mark.parametrize("change", [{"period": 2}, {"topology": "star"}, {"staleness": [3, 1]}])
def test_so_it_does_with_other_neighbours_periods_and_staleness(change: dict[str, Any]) -> None:
    hold_to_the_loop(make_task(), settings(**change))


@pytest.mark.parametrize(("groups", "stages"), [(2, 1), (3, 2)])
def test_processes_meet_as_they_do_and_the_simulator_and_the_plain_loop_repeat_it(groups: int, stages: int) -> None:
    found = verify(make_task(), settings(groups, stages))
    assert [difference.name for difference in found] == ["processes", "plain loops"]
    assert all(difference.equal for difference in found)


def test_a_recorded_run_is_replayed(tmp_path: Path) -> None:
    task, asked = make_task(), settings(3, 1, engine="processes", out=tmp_path / "run", momentum=True)
    execute(task, asked, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / MEETINGS / "1-0.jsonl").read_text().splitlines()]
    assert any("asks" in line for line in lines)
    made = replay(task, asked, tmp_path / "run", quiet=True)
    assert made.equal
    (tmp_path / "run" / MEETINGS / "1-0.jsonl").write_text("")
    with pytest.raises(ConfigError, match="the record is not that of a whole run"):
        replay(task, asked, tmp_path / "run", quiet=True)


class Still(nn.Module):
    """One parameter, and a statistic that is infinite."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((3,), value))
        self.register_buffer("extreme", torch.tensor([value, math.inf if value > 2 else 0.0]))


def test_what_both_have_is_in_the_middle_and_what_one_has_made_in_between_stays() -> None:
    one, two = Still(1.0), Still(3.0)
    first, second = (PairAveraging(weights, None) for weights in (Weights(one), Weights(two)))
    question = Tag(Edge(QUESTION, Unit(0, 0), Unit(1, 0)), 0)
    answer = Tag(Edge(ANSWER, Unit(1, 0), Unit(0, 0)), 0)
    asked = first.step(Action(Kind.SHARE, 0, sends=(question,)), [])
    one.w.data.add_(0.25)
    answered = second.step(Action(Kind.MIX, 0, (question,), (answer,)), asked)
    two.w.data.add_(0.5)
    assert first.step(Action(Kind.MIX, 1, (answer,)), answered) == []
    assert one.w.tolist() == [2.25] * 3
    assert two.w.tolist() == [2.5] * 3
    assert one.extreme.tolist() == [2.0, 0.0]
    assert two.extreme.tolist() == [2.0, math.inf]


def test_the_mean_over_groups_is_preserved_to_rounding() -> None:
    lateral = InStep(Drawn(((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)), 1, 30))
    torch.manual_seed(0)
    weights = [Weights(nn.Linear(49, 1).double()) for _ in range(4)]
    for each in weights:
        each.flat.normal_()
    before = torch.stack([each.flat.clone() for each in weights])
    exchanges = [PairAveraging(each, None) for each in weights]
    sent: dict[Tag, Message] = {}
    for n in range(30):
        for s in range(4):
            for action in lateral.after_update(Unit(s, 0), n):
                for message in exchanges[s].step(action, [sent.pop(tag) for tag in action.needs]):
                    sent[message.tag] = message
    assert not sent
    after = torch.stack([each.flat for each in weights])
    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=0, atol=1e-14)
    assert (after - after.mean(0)).norm() < 0.1 * (before - before.mean(0)).norm()


def test_all_neighbours_are_asked_once_before_any_is_asked_again() -> None:
    drawn = Drawn(((1, 2, 3),), 1, 50, 0, 7)
    asked = [drawn.asked(Unit(0, 0), i).target for i in range(30)]
    assert all(sorted(asked[i : i + 3]) == [1, 2, 3] for i in range(0, 30, 3))
    assert len({tuple(asked[i : i + 3]) for i in range(0, 30, 3)}) > 2
    assert asked != [drawn.asked(Unit(0, 1), i).target for i in range(30)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lag": 1}, r"pairwise takes answers as they come; .*\(mixing.lag: 1\)"),
        ({"period": 0}, r"counts updates from 1 \(period: 0\)"),
        ({"period": 7}, r"the groups would never mix \(period: 7, updates: 8\)"),
        ({"batch_size": [4, 2, 2]}, r"no mean that is weighed by unlike sizes \(mixing: pairwise, batch_size: 4,2,2\)"),
        ({"engine": "processes", "meetings": Path("m")}, r"repeated on the simulator \(mixing.meetings: m\)"),
        ({"mixing": "combine-while-adapt", "meetings": Path("m")}, r"timing decides nothing \(mixing.meetings: m"),
        ({"meetings": Path("nowhere")}, r"the record of unit \(0,0\) cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        execute(make_task(), settings(**change), quiet=True)


class Ending(Callback):
    """One that may ask for the end."""

    stops = True


def test_what_timing_decides_can_neither_be_saved_nor_ended_early(tmp_path: Path) -> None:
    saved = settings(engine="processes", out=tmp_path / "run", checkpoint=CheckpointSettings(every=2))
    with pytest.raises(ConfigError, match=r"what is under way .*\(mixing: pairwise, engine: processes\)"):
        execute(make_task(), saved, quiet=True)
    with pytest.raises(ConfigError, match=r"nobody knows who has met whom when a callback ends the run"):
        execute(make_task(), settings(), callbacks=[Ending()], quiet=True)
    lost = settings(out=tmp_path / "lost", checkpoint=CheckpointSettings(every=2), on_loss="continue")
    with pytest.raises(ConfigError, match="pairwise does not go on without a group"):
        execute(make_task(), lost, quiet=True)
