"""Which learning rate does a late gradient bear, and a late mixing?  Recursions on quadratics, in numbers alone.

Does not know: models, tensors, methods, how curvature is measured.
"""

from stalegrid.stability.groups import Rounds, left_by_mixing, rate_of_groups
from stalegrid.stability.recursion import Late, Momentum, Recursion, delayed_limit

__all__ = ["Late", "Momentum", "Recursion", "Rounds", "delayed_limit", "left_by_mixing", "rate_of_groups"]
