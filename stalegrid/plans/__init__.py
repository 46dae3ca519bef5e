"""A run made definite before anything starts: every choice settled, and what only their combination breaks refused.

Does not know: engines, files.
"""

from stalegrid.plans.choices import Choices, updates_of
from stalegrid.plans.devices import ESTIMATED, Devices, check_share
from stalegrid.plans.exchanged import Exchanged
from stalegrid.plans.gain import Gain
from stalegrid.plans.make import plan_of
from stalegrid.plans.material import cast_model, make_batches, make_test, precision_of, whole_model
from stalegrid.plans.measured import check_measured
from stalegrid.plans.membership import ALL, RETURNED, Membership
from stalegrid.plans.origin import origin_of
from stalegrid.plans.plan import Plan
from stalegrid.plans.served import ServedPlan
from stalegrid.plans.settling import grid_of, make_plan
from stalegrid.plans.settling_served import (
    make_served_plan,
    rules_of,
    served_makers,
    server_optimizer,
    updates_per_epoch,
)
from stalegrid.plans.staged import Staged
from stalegrid.plans.task import Task, fingerprint
from stalegrid.plans.telling import dealt_by, facts, headline
from stalegrid.plans.traffic import Traffic, mean_of_cycle, mean_traffic, vectors_sent

__all__ = [
    "ALL",
    "ESTIMATED",
    "RETURNED",
    "Choices",
    "Devices",
    "Exchanged",
    "Gain",
    "Membership",
    "Plan",
    "ServedPlan",
    "Staged",
    "Task",
    "Traffic",
    "cast_model",
    "check_measured",
    "check_share",
    "dealt_by",
    "facts",
    "fingerprint",
    "grid_of",
    "headline",
    "make_batches",
    "make_plan",
    "make_served_plan",
    "make_test",
    "mean_of_cycle",
    "mean_traffic",
    "origin_of",
    "plan_of",
    "precision_of",
    "rules_of",
    "served_makers",
    "server_optimizer",
    "updates_of",
    "updates_per_epoch",
    "vectors_sent",
    "whole_model",
]
