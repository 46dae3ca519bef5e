"""Optimizers: how a user's factory is called, and several that act as one.

Does not know: units, schedules.
"""
