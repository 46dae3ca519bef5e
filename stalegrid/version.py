"""The version of the package, alone so that building it needs no torch."""

__version__ = "0.1.0"
