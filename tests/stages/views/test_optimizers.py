"""Every view with every optimizer, under a schedule and with clipped gradients: it runs, or it is refused."""

from functools import partial
from typing import Any

import pytest
import torch

from stalegrid.errors import ConfigError
from stalegrid.stages.views.named import VIEWS
from tests.cases import make_plan, make_settings, make_task, record_simulator

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, weight_decay=0.01),
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": partial(torch.optim.Adam, lr=0.01, weight_decay=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.01),
    "nadam": partial(torch.optim.NAdam, lr=0.01, decoupled_weight_decay=True, weight_decay=0.01),
}
NOTHING_TO_EXTRAPOLATE = {"sgd", "nadam"}
SETTINGS: dict[str, Any] = {"staleness": [2, 1, 0], "micro_batches": 2, "updates": 5, "clip": 1.0}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("view", VIEWS)
def test_it_runs_or_is_refused(view: str, name: str) -> None:
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    task, settings = make_task(optimizer=OPTIMIZERS[name], scheduler=halve), make_settings(1, 3, view=view, **SETTINGS)
    if view.startswith("predicted") and name in NOTHING_TO_EXTRAPOLATE:
        with pytest.raises(ConfigError, match="predicted weights are extrapolated"):
            make_plan(task, settings)
        return
    sink = record_simulator(task, settings)
    lr = OPTIMIZERS[name].keywords["lr"]
    assert [record["lr"] for record in sink.records] == [lr * 0.5**n for n in range(5)]
    start = task.model.state_dict()
    for parameter, _ in task.model.named_parameters():
        found = sink.means[-1][parameter]
        assert found.isfinite().all()
        assert not torch.equal(found, start[parameter])
