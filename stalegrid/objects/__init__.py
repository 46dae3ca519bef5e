"""What the user's own models, functions, losses and factories hold, and copies of them that lose nothing.

Does not know: stages, groups, what the copies are for.
"""
