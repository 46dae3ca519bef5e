"""A model cut into K stage modules, balanced by measured cost or where the user says.

Does not know: groups, methods, engines.
"""
