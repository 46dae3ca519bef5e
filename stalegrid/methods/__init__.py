"""Which published method is which setting of the parts, and how it is cited.

Does not know: how any part works.
"""
