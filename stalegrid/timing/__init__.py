"""When it would happen: virtual time for the actions of a program, on given devices and links.

Does not know: tensors, processes.
"""

from stalegrid.timing.arrivals import ServedTimes, drawn
from stalegrid.timing.clock import Clock, TimeModel, message_bytes
from stalegrid.timing.columns import DeviceTable, parse_costs, read_costs
from stalegrid.timing.costs import NANOSECONDS, Cost, CostTable, frozen_stages, ties_of
from stalegrid.timing.disturbances import Disturbances, has_units
from stalegrid.timing.estimating import Estimate, estimate, long_enough, steady
from stalegrid.timing.links import Link
from stalegrid.timing.pace import Pace
from stalegrid.timing.settings import DeviceSettings
from stalegrid.timing.tune import least_staleness

__all__ = [
    "NANOSECONDS",
    "Clock",
    "Cost",
    "CostTable",
    "DeviceSettings",
    "DeviceTable",
    "Disturbances",
    "Estimate",
    "Link",
    "Pace",
    "ServedTimes",
    "TimeModel",
    "drawn",
    "estimate",
    "frozen_stages",
    "has_units",
    "least_staleness",
    "long_enough",
    "message_bytes",
    "parse_costs",
    "read_costs",
    "steady",
    "ties_of",
]
