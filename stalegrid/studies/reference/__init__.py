"""Plain loops over whole tensors: what each method computes, for the engines to be held against, bit for bit.

Does not know: programs, agents, engines, messages, flat vectors; it shares no code with them.
"""
