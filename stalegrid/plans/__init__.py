"""A run made definite before anything starts: every choice settled, and what only their combination breaks refused.

Does not know: engines, files.
"""
