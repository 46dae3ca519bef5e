"""Ordinary models for the command line, examples and benchmarks.

Does not know: stages, engines.
"""

from stalegrid.models.named import GPT, build, convnet, mlp, resnet

__all__ = ["GPT", "build", "convnet", "mlp", "resnet"]
