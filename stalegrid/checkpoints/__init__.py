"""Where the state of a run is kept, and when it is whole.

A checkpoint is a folder of one version, with a part for every agent and a manifest that is written last: what has none
is not whole, whenever the run was killed.

Does not know: agents, engines, what a state says.
"""

from stalegrid.checkpoints.kept import Checkpoint, check_settings, newest, read_checkpoint
from stalegrid.checkpoints.layout import FOLDER, SCHEMA, folder_of, name_of_part, unit_of_part
from stalegrid.checkpoints.settings import CheckpointSettings
from stalegrid.checkpoints.shelf import Shelf, forget_after

__all__ = [
    "FOLDER",
    "SCHEMA",
    "Checkpoint",
    "CheckpointSettings",
    "Shelf",
    "check_settings",
    "folder_of",
    "forget_after",
    "name_of_part",
    "newest",
    "read_checkpoint",
    "unit_of_part",
]
