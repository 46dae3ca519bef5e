"""Fully decoupled training with delayed gradients (FDG) as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Zhuang et al., arXiv 1906.09108, as the authors' code (ZHUANGHP/FDG) computes it: a late backward has the activations
of its forward but the weights of now, and every module but the last shrinks the gradient that it receives by beta.
Published is the order backward, update, forward within a tick; with the other one, forward, backward, update, m_k is
one more for all modules but the last.

That is accumulated decoupled learning of single batches, so it is that loop.
"""

from functools import partial

from stalegrid.studies.reference.adl import adl

fdg = partial(adl, M=1)
