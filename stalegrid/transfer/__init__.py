"""How the state of a run moves: into a grid of another shape, into a plain loop, and from there into a run.

A state is taken apart by the names that the user's model has for its parameters, whoever has trained them.

Does not know: engines, what agents do.
"""

from stalegrid.transfer.asked import check_start, start_of
from stalegrid.transfer.beginning import ANEW, FromFile, FromRun, Start, sentence
from stalegrid.transfer.exported import export
from stalegrid.transfer.plain import load_exported, save_exported
from stalegrid.transfer.position import Position
from stalegrid.transfer.reading import facts_of, read_whole
from stalegrid.transfer.whole import Whole

__all__ = [
    "ANEW",
    "FromFile",
    "FromRun",
    "Position",
    "Start",
    "Whole",
    "check_start",
    "export",
    "facts_of",
    "load_exported",
    "read_whole",
    "save_exported",
    "sentence",
    "start_of",
]
