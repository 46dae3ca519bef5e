"""Views: which weights a forward uses and a late backward sees, one file each, by the names that users give.

Does not know: how a backward reads them.
"""
