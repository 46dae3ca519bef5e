"""Whether targets travel, and what that changes of a plan."""

import pytest
import torch

from stalegrid.data.settings import TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.plans.material import make_batches
from stalegrid.plans.targets import Targets, targets_travel
from stalegrid.programs.messages import TensorSpec
from stalegrid.timing.costs import Cost, CostTable
from tests.cases import make_plan, make_settings, make_task


def test_targets_are_described_by_their_form_and_layout() -> None:
    tree = {"class": torch.zeros(4, dtype=torch.int64), "more": [torch.zeros(4, 3)]}
    found = Targets.of(tree)
    assert found.layouts == ((TensorSpec((4,), (1,), torch.int64), TensorSpec((4, 3), (3, 1), torch.float32)),)
    assert found.form.fill("ab") == {"class": "a", "more": ["b"]}


def test_they_travel_where_that_is_asked_for_and_where_data_is_a_stream() -> None:
    asked = {"read": TrainingSettings(targets="read"), "travel": TrainingSettings(targets="travel")}
    asked[""] = TrainingSettings()
    data = make_batches(make_task(), TrainingSettings(), 1, 1)
    assert {name: targets_travel(how, data) for name, how in asked.items()} == {
        "read": False,
        "travel": True,
        "": False,
    }
    stream = make_batches(make_task(data=iter(())), TrainingSettings(), 1, 1)
    assert [targets_travel(asked[name], stream) for name in ("travel", "")] == [True, True]
    with pytest.raises(ConfigError, match=r"first stage alone \(training.targets: read\); leave training.targets out"):
        targets_travel(asked["read"], stream)


@pytest.mark.parametrize(("stages", "travel"), [(1, False), (2, True)])
def test_the_program_of_several_stages_has_messages_for_them(stages: int, travel: bool) -> None:
    assert make_plan(make_task(), make_settings(1, stages, targets="travel")).program.targets_travel == travel


def test_staleness_that_is_chosen_by_costs_knows_what_they_weigh() -> None:
    # 2000 bytes take as long on their way as four batches to compute: no staleness makes up for that.
    parts = (Cost(forward=1, backward=2, output=8), Cost(forward=1, backward=2, input=8, targets=2000))

    def chosen(targets: str) -> list[int]:
        asked = make_settings(1, 2, staleness="auto", link=[0.0, 1.0], targets=targets, engine="simulator")
        return [w - 1 for w in make_plan(make_task(), asked, CostTable(4, parts)).schedule.windows]

    assert chosen("read") == [2, 0]
    assert chosen("travel") == [1, 0]
