"""What a finished run looks like: one page, from what its folder tells.

Does not know: how runs train.
"""
