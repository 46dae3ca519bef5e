"""Published results trained again: each a configuration, a budget, what was published, what came of it, and a verdict.

``python -m benchmarks.gallery [NAME ...] --scale smoke|cpu|full`` trains what has not been trained yet, run by run, and
keeps what came of each; ``--page`` writes docs/gallery.md and its pictures from what is kept, and trains nothing.
"""
