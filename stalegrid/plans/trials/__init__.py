"""A trial of what is planned, on copies of the stages: what cannot work is said before any process starts.

Does not know: groups, engines, messages.
"""

from stalegrid.plans.trials.probe import Probed, probe, widest
from stalegrid.plans.trials.trial import CPU

__all__ = ["CPU", "Probed", "probe", "widest"]
