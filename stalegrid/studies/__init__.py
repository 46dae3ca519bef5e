"""Runs held against each other, against what they recorded, and against the papers.

Does not know: how any part works.
"""
