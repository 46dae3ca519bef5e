"""What is told while a run goes on, and where it is written: records, and the places that take them.

Does not know: agents, engines.
"""
