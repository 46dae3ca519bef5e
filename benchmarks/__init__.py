"""Benchmarks: every figure is a ratio against a peer or an ideal, taken in one interleaved run."""
