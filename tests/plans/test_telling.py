import torch
from torch import nn

from stalegrid.plans import facts, headline
from tests.cases import make_plan, make_settings, make_task

torch.set_num_threads(1)


def test_a_plan_says_what_captured_the_model_and_what_each_stage_has() -> None:
    plan = make_plan(make_task(), make_settings(1, 2))
    cut = plan.partition.names[0]
    assert f"on simulator, captured by torch.fx, cut before {cut};" in headline(plan, "simulator", 1)
    told = facts(plan)
    assert (told["captured"], told["cuts"], told["capture_notes"]) == ("torch.fx", [cut], [])
    assert told["places"] == plan.partition.places > 1
    assert [set(share) for share in told["shares"]] == [{"time", "parameters"}] * 2


def test_a_model_in_one_stage_is_captured_by_nothing() -> None:
    plan = make_plan(make_task(model=nn.Sequential(nn.Flatten(), nn.Linear(72, 3))), make_settings(1, 1))
    assert "captured" not in headline(plan, "simulator", 1)
    assert facts(plan)["captured"] is None
    assert facts(plan)["places"] is None
