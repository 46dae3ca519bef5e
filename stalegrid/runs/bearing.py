"""Which learning rates a planned run bears, measured before it starts.

Does not know: how curvature is measured, how runs are planned and carried out.
"""

import warnings
from dataclasses import replace

from stalegrid.config import Settings
from stalegrid.engines import computing, use_device
from stalegrid.errors import ConfigError
from stalegrid.limits import BATCHES, PRODUCTS, Limits, measure_limits
from stalegrid.limits import warnings as above
from stalegrid.plans import Plan, ServedPlan, Task
from stalegrid.seeds import kept


def limits_of(
    task: Task, settings: Settings, plan: Plan | ServedPlan, batches: int = BATCHES, products: int = PRODUCTS
) -> Limits:
    """Say which rates a run bears that is planned.

    Args:
        task: what is trained.
        settings: how.
        plan: of the run.
        batches: of which the loss is taken.
        products: with the Hessian, at most, for every stage.

    Raises:
        ConfigError: it is a run of learners, or curvature cannot be measured.
    """
    if not isinstance(plan, Plan):
        raise ConfigError(
            f"limits are those of a grid, whose staleness is known beforehand (method: {plan.method.name}); learners "
            "are as late as they happen to be"
        )
    device = use_device(settings.engine.device, 0)
    with computing(settings.engine.threads), kept(device):
        return measure_limits(task, plan, device, batches, products)


def bearing(task: Task, settings: Settings, plan: Plan | ServedPlan) -> Plan:
    """Return a plan that says which rates its run bears, and warn of limits that its schedule exceeds.

    Warns too of why a limit is not known; see :func:`limits_of`.
    """
    found = limits_of(task, settings, plan)
    unknown = sorted({limit.why for limit in found.each if limit.rate is None})
    for line in (*above(found), *(f"the largest stable rate is {w}" if w.startswith("not ") else w for w in unknown)):
        warnings.warn(line, stacklevel=3)
    assert isinstance(plan, Plan)  # others have no limits
    return replace(plan, bears=found.plain())
