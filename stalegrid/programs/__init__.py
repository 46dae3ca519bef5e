"""What is due, and which messages tie it together: programs of units, learners and servers, as data.

Does not know: tensors' values, time, ranks.
"""
