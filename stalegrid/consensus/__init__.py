"""What groups exchange, with whom and when, and what it does to parameters or gradients.

Does not know: what stages compute, engines.
"""

from stalegrid.consensus.choco import Choco
from stalegrid.consensus.choose import check_turns, choose_mixing, find_mixing, kind_of, turns_of
from stalegrid.consensus.matrices import Topology
from stalegrid.consensus.mixing import Exchange, Hearing, Mixing, Telling, Turns, Vectors
from stalegrid.consensus.mixings import NONE, AdaptThenCombine, CombineWhileAdapt, has_name
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.noloco import NoLoCo
from stalegrid.consensus.outer import Outer
from stalegrid.consensus.own import check_mixing
from stalegrid.consensus.rounds import Averaging
from stalegrid.consensus.settings import MixingSettings
from stalegrid.consensus.usual import UsualTurns
from stalegrid.consensus.weighing import weighed, weights_of

__all__ = [
    "NONE",
    "AdaptThenCombine",
    "Averaging",
    "Choco",
    "CombineWhileAdapt",
    "Exchange",
    "Hearing",
    "Mixing",
    "MixingSettings",
    "Momentum",
    "NoLoCo",
    "Outer",
    "Telling",
    "Topology",
    "Turns",
    "UsualTurns",
    "Vectors",
    "check_mixing",
    "check_turns",
    "choose_mixing",
    "find_mixing",
    "has_name",
    "kind_of",
    "turns_of",
    "weighed",
    "weights_of",
]
