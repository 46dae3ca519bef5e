"""What one stage computes, and at which weights: its cut from its neighbours, versions, views and corrections.

Does not know: other units, schedules of others.
"""

from stalegrid.stages.compiled import fault_of_compiler
from stalegrid.stages.corrections.named import Correction, Maker, Update, makers, ruled, vectors_of
from stalegrid.stages.described import described
from stalegrid.stages.kinds import kind_of_stage
from stalegrid.stages.ledger import Ledger
from stalegrid.stages.mirrors import Mirrors
from stalegrid.stages.optimizers.by_name import by_name
from stalegrid.stages.optimizers.given import Named, OptimizerFactory, make_optimizer, make_scheduler, takes_names
from stalegrid.stages.optimizers.joined import Joined, kinds_of, parts_of
from stalegrid.stages.optimizers.moved import move, options_of
from stalegrid.stages.optimizers.named import (
    NamedGroup,
    NamedState,
    alike,
    by_names,
    load_named,
    load_schedule,
    named_state,
)
from stalegrid.stages.optimizers.state import load_optimizer, load_scheduler, state_of_optimizer, state_of_scheduler
from stalegrid.stages.precision import Precision
from stalegrid.stages.site import Site, part
from stalegrid.stages.stage import Gradients, Head, Stage, before_batches
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
    "Head",
    "Joined",
    "Kept",
    "Ledger",
    "Maker",
    "Mirrors",
    "Named",
    "NamedGroup",
    "NamedState",
    "OptimizerFactory",
    "Precision",
    "Recomputed",
    "Site",
    "Stage",
    "StageLayout",
    "Stashed",
    "Update",
    "Versions",
    "View",
    "Weights",
    "alike",
    "before_batches",
    "by_name",
    "by_names",
    "described",
    "fault_of_compiler",
    "find_view",
    "kind_of_stage",
    "kinds_of",
    "load_named",
    "load_optimizer",
    "load_schedule",
    "load_scheduler",
    "make_optimizer",
    "make_scheduler",
    "makers",
    "move",
    "name_of_view",
    "named_state",
    "options_of",
    "part",
    "parts_of",
    "ruled",
    "state_of_optimizer",
    "state_of_scheduler",
    "takes_names",
    "vectors_of",
]
