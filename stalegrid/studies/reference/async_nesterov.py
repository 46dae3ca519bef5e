"""Nesterov's method for asynchronous pipelines as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Ajanthan et al., arXiv 2505.01099: d_t = gamma (w_t - w_{t-1}), w_{t+1} = w_t + d_t - eta (1 - gamma) g, where g is the
gradient at the stale look-ahead w + d of m_k = K-1-k updates ago.  As in the paper's experiments the update is the
optimizer's: torch.optim.NAdam, betas (0.99, 0.999), momentum_decay 0.004, decoupled weight decay.  It steps by
(1 - mu_t) times the gradient and mu_{t+1} times the new mean, both over the root of the second moment: (1 - mu_t)
stands for 1 - gamma, and mu_{t+1} times the mean for the next d, so the weights left are looked ahead already.

The gradients are PipeDream's, so it is PipeDream's loop, given that optimizer.
"""

from stalegrid.studies.reference.pipedream import pipedream

async_nesterov = pipedream
