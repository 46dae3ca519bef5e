"""Ordinary models for the command line, examples and benchmarks.

Does not know: stages, engines.
"""

from stalegrid.models.named import build

__all__ = ["build"]
