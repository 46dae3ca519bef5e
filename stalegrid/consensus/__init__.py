"""What groups exchange, with whom and when, and what it does to parameters or gradients.

Does not know: what stages compute, engines.
"""
