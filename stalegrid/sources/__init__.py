"""A model that is built without memory, where values for its tensors are, and parts of it in memory.

Does not know: stages, processes, which part is wanted where.
"""

from stalegrid.sources.source import Built, Source, built, filled, stand_in, whole_model

__all__ = ["Built", "Source", "built", "filled", "stand_in", "whole_model"]
