"""Features replay as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Huo, Gu and Huang, arXiv 1807.04511, Algorithm 1: module k plays the features h_{k-1} of its history again, with the
weights of now, and applies to the result the error gradient delta_k from the module above; h_{k-1} is m_k = K-1-k
iterations old.  The replay draws the same dropout and, unlike the authors' code, counts in no running statistics.

With the same m_k this is the recurrence of diversely stale parameters, so it is their loop.
"""

from stalegrid.studies.reference.dsp import dsp

features_replay = dsp
