"""Who diagnoses a run, if anybody does: tried before anything starts.

Does not know: what a diagnosis says, how runs are carried out.
"""

from collections.abc import Callable
from functools import partial

import torch

from stalegrid.diagnosis import Diagnosis, read_fixed
from stalegrid.engines import computing, use_device
from stalegrid.errors import ConfigError
from stalegrid.plans import Plan, ServedPlan
from stalegrid.runs.asked import Asked
from stalegrid.seeds import kept


def diagnoses_of(asked: Asked, plan: Plan | ServedPlan) -> Callable[[torch.device], Diagnosis] | None:
    """Return what makes who diagnoses a run on a device; None where nobody does.

    Raises:
        ConfigError: it cannot be diagnosed.
    """
    engine, every = asked.settings.engine, asked.settings.output.diagnose
    if not isinstance(plan, Plan) or not every:
        return None
    if engine.on_loss == "continue":
        raise ConfigError(
            "what a lost group's weights were is not known, nor what groups add that are left (engine.on_loss: "
            f"continue, output.diagnose: {every}); leave one of the two out"
        )
    device = use_device(engine.device, 0)
    with computing(engine.threads, sparing=asked.task.source is not None), kept(device):
        fixed = read_fixed(asked.task, plan)
        Diagnosis(asked.task, plan, fixed, device).check()
    return partial(Diagnosis, asked.task, plan, fixed)
