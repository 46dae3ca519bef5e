"""Asynchronous training with controlled inconsistency (PACI) as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Elam et al., arXiv 2606.07881: no flush, no second copy of weights; a backward has the activations of its forward and
the weights of now.  Every stage averages the gradients of its last M micro-batches before it updates, so that a
micro-batch m_k behind crosses at most ceil(m_k / M) updates.

That is accumulated decoupled learning with a mean in the place of the sum, so it is that loop.
"""

from functools import partial

from stalegrid.studies.reference.adl import adl

paci = partial(adl, reduction="mean")
