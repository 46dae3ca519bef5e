"""Decoupled parallel backpropagation with delayed gradients (DDG) as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Huo, Gu, Yang and Huang, arXiv 1804.10574, Algorithm 1: module k applies at iteration t the gradient of batch
t - m_k, taken at the weights of that batch's forward, w^{t-m_k}; the paper's m_k is K-1-k.

With the same m_k this is PipeDream's recurrence, so it is PipeDream's loop.
"""

from stalegrid.studies.reference.pipedream import pipedream

ddg = pipedream
