"""Ordinary models for the command line, examples and benchmarks.

Does not know: stages, engines.
"""
