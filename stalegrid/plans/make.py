"""The plan of a run, whichever its method is.

Does not know: what a plan consists of.
"""

from stalegrid.methods import ServerMethod, find
from stalegrid.plans.choices import Choices
from stalegrid.plans.in_common import planned
from stalegrid.plans.plan import Plan
from stalegrid.plans.served import ServedPlan
from stalegrid.plans.settling import make_plan
from stalegrid.plans.settling_served import make_served_plan
from stalegrid.plans.task import Task
from stalegrid.timing import CostTable, DeviceTable


def plan_of(
    task: Task, asked: Choices, table: CostTable | DeviceTable | None = None, *, virtual: bool = False
) -> Plan | ServedPlan:
    """Settle and check every choice of a run; for the rest see :func:`stalegrid.plans.settling.make_plan`."""
    served = isinstance(find(asked.method.name), ServerMethod)
    made = make_served_plan if served else make_plan
    return planned(lambda: made(task, asked, table, virtual=virtual), task, asked)
