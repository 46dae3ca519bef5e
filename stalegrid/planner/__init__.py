"""Which grid, method and staleness suit given devices.

Does not know: how runs train.
"""
