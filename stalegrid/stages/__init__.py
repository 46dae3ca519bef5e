"""What one stage computes, and at which weights: its cut from its neighbours, versions, views and corrections.

Does not know: other units, schedules of others.
"""

from stalegrid.stages.corrections.named import Correction, Maker, Update, makers, ruled
from stalegrid.stages.kinds import kind_of_stage
from stalegrid.stages.ledger import Ledger
from stalegrid.stages.site import Site
from stalegrid.stages.stage import Gradients, Stage
from stalegrid.stages.views.current import Current
from stalegrid.stages.views.named import VIEWS, Kept, View, find_view, name_of_view
from stalegrid.stages.views.recomputed import Recomputed
from stalegrid.stages.views.stashed import Stashed
from stalegrid.stages.weights import Entry, StageLayout, Versions, Weights

__all__ = [
    "VIEWS",
    "Correction",
    "Current",
    "Entry",
    "Gradients",
    "Kept",
    "Ledger",
    "Maker",
    "Recomputed",
    "Site",
    "Stage",
    "StageLayout",
    "Stashed",
    "Update",
    "Versions",
    "View",
    "Weights",
    "find_view",
    "kind_of_stage",
    "makers",
    "name_of_view",
    "ruled",
]
