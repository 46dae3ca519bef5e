"""What the user's own models, functions, losses and factories hold, and copies of them that lose nothing.

Does not know: stages, groups, what the copies are for.
"""

from stalegrid.objects.aliases import check_followed, check_functions, check_hooks, check_memory, check_readers
from stalegrid.objects.copies import attach, by_every_name, cast, copied, first_names, hooks_of, ordered, tensors_of
from stalegrid.objects.holding import Held, changes, held, tensors_held
from stalegrid.objects.labels import ignored_by
from stalegrid.objects.losses import LossFunction, own_loss
from stalegrid.objects.marks import is_list, replaced
from stalegrid.objects.memory import Memory, in_common, kept_apart, recall, remembered
from stalegrid.objects.modes import in_training
from stalegrid.objects.reached import leaves
from stalegrid.objects.renewing import renewed
from stalegrid.objects.spectral import renew
from stalegrid.objects.states import State, joined, parted
from stalegrid.objects.thin import Thin, dense, has_thin, is_large, nudge
from stalegrid.objects.trees import (
    PLACE,
    Form,
    Shapes,
    Tensors,
    call,
    each_leaf,
    mapped,
    shapes_of,
    shown,
    spread,
    tensors_in,
)

__all__ = [
    "PLACE",
    "Form",
    "Held",
    "LossFunction",
    "Memory",
    "Shapes",
    "State",
    "Tensors",
    "Thin",
    "attach",
    "by_every_name",
    "call",
    "cast",
    "changes",
    "check_followed",
    "check_functions",
    "check_hooks",
    "check_memory",
    "check_readers",
    "copied",
    "dense",
    "each_leaf",
    "first_names",
    "has_thin",
    "held",
    "hooks_of",
    "ignored_by",
    "in_common",
    "in_training",
    "is_large",
    "is_list",
    "joined",
    "kept_apart",
    "leaves",
    "mapped",
    "nudge",
    "ordered",
    "own_loss",
    "parted",
    "recall",
    "remembered",
    "renew",
    "renewed",
    "replaced",
    "shapes_of",
    "shown",
    "spread",
    "tensors_held",
    "tensors_in",
    "tensors_of",
]
