"""Runs held against each other, against what they recorded, and against the papers.

Does not know: how any part works.
"""

from stalegrid.studies.comparing import compare
from stalegrid.studies.comparison import failures, table
from stalegrid.studies.rehearsal import emulate, rehearse
from stalegrid.studies.replaying import recorded_config, replay
from stalegrid.studies.verifying import LOOPS, verify

__all__ = ["LOOPS", "compare", "emulate", "failures", "recorded_config", "rehearse", "replay", "table", "verify"]
