"""Corrections: what staleness does to a gradient or a learning rate, one small file a rule.

Does not know: schedules, other units.
"""
