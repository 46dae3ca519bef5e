"""When and where the actions of a program happen: in this process, or in many.

Does not know: what the actions compute.
"""
