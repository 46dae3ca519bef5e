"""When it would happen: virtual time for the actions of a program, on given devices and links.

Does not know: tensors, processes.
"""
