"""What groups exchange, with whom and when, and what it does to parameters or gradients.

Does not know: what stages compute, engines.
"""

from stalegrid.consensus.choco import Choco
from stalegrid.consensus.choose import choose_mixing, find_mixing, kind_of, turns_of
from stalegrid.consensus.matrices import Topology
from stalegrid.consensus.mixing import Exchange, Hearing, Mixing, Turns, Vectors
from stalegrid.consensus.mixings import NONE, AdaptThenCombine, CombineWhileAdapt, has_name
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.own import check_mixing
from stalegrid.consensus.rounds import Averaging
from stalegrid.consensus.settings import MixingSettings
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
    "Topology",
    "Turns",
    "Vectors",
    "check_mixing",
    "choose_mixing",
    "find_mixing",
    "has_name",
    "kind_of",
    "turns_of",
    "weighed",
    "weights_of",
]
