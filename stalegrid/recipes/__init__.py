"""How a task is made of names: data, model, loss and optimizer of a command line or a file.

Does not know: how it is trained.
"""
