"""Where the state of a run is kept, and when it is whole.

A checkpoint is a folder of one version, with a part for every agent and a manifest that is written last: what has none
is not whole, whenever the run was killed.

Does not know: agents, engines, what a state says.
"""

from stalegrid.checkpoints.anew import check_left, check_not_ended, check_same, clear
from stalegrid.checkpoints.compared import (
    DEALT,
    FREE,
    ORIGIN,
    check_dealt,
    check_first,
    check_origin,
    check_settings,
    other_bits,
)
from stalegrid.checkpoints.kept import Checkpoint, newest, read_checkpoint, run_of
from stalegrid.checkpoints.layout import FOLDER, SCHEMA, folder_of, name_of_part, unit_of_part
from stalegrid.checkpoints.returning import answer, ask_back, asked_back
from stalegrid.checkpoints.settings import CheckpointSettings
from stalegrid.checkpoints.shelf import Shelf
from stalegrid.checkpoints.taken import check_free, forget_after, goes_on, shared, taken, write_end

__all__ = [
    "DEALT",
    "FOLDER",
    "FREE",
    "ORIGIN",
    "SCHEMA",
    "Checkpoint",
    "CheckpointSettings",
    "Shelf",
    "answer",
    "ask_back",
    "asked_back",
    "check_dealt",
    "check_first",
    "check_free",
    "check_left",
    "check_not_ended",
    "check_origin",
    "check_same",
    "check_settings",
    "clear",
    "folder_of",
    "forget_after",
    "goes_on",
    "name_of_part",
    "newest",
    "other_bits",
    "read_checkpoint",
    "run_of",
    "shared",
    "taken",
    "unit_of_part",
    "write_end",
]
