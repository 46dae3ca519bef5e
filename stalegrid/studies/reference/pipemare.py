"""PipeMare as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Yang et al., arXiv 1910.05124.  T1 (section 3.1), learning rate rescheduling: update n of a stage of delay tau has the
rate alpha tau^{-p}, p = 1 - min(n / anneal, 1).  T2 (section 3.2), discrepancy correction: a backward has the
activations of its forward and the weights u = w - tau delta, with delta <- gamma delta + (1 - gamma) (w_new - w_old)
and gamma = D^{1/tau}, D = e^{-2}.
"""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Gradients, Named, Pass, Tensors, backward, forward, named, weights


def pipemare(
    stages: list[nn.Module],
    *,
    m: Sequence[int],
    N: int,
    inputs: Callable[[int], Tensors],
    targets: Callable[[int], Tensor],
    loss: Callable[..., Tensor],
    optimizer: Callable[[Named], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    anneal: int,
    correct: bool = True,
    drawing: Callable[[int, int], AbstractContextManager[None]],
) -> tuple[list[nn.Module], list[float]]:
    """Train with rescheduled rates and corrected weights.

    Args:
        stages: f_0 .. f_{K-1}, each from the outputs of the one before; left as they are.
        m: staleness of each stage in updates, non-increasing.
        N: updates; update n uses batch n.
        inputs: b -> inputs of batch b.
        targets: b -> its targets.
        loss: (outputs, targets) -> mean over the samples.
        optimizer: named parameters of a stage -> its optimizer.
        scheduler: optimizer -> what is stepped after each update.
        anneal: updates until the rate is the optimizer's own, at least 1.
        correct: whether backwards correct the weights (T2).
        drawing: (k, b) -> the context in which a forward draws.

    Returns:
        The trained stages and the loss of every update.
    """
    K = len(stages)
    w = [copy.deepcopy(f) for f in stages]
    step = [optimizer(named(f)) for f in w]
    rate = [scheduler(each) for each in step] if scheduler else []
    delta = [[torch.zeros_like(p) for p in weights(f)] for f in w]
    flying: dict[tuple[int, int], Pass] = {}
    losses: list[float] = []
    for n in range(N):
        for k in range(K):
            # Round 0 fills the pipeline with batches 0 .. m_k; each later round forwards one more.
            for b in range(m[k] + n if n else 0, min(m[k] + n, N - 1) + 1):
                x = flying[k - 1, b].y if k else inputs(b)
                with drawing(k, b):
                    new = forward(w[k], x, k > 0)
                    if k == K - 1:
                        new = new._replace(y=(loss(*new.y, targets(b)),))
                        losses.append(new.y[0].item())
                flying[k, b] = new
        g: Gradients = (torch.ones_like(flying[K - 1, n].y[0]),)
        for k in reversed(range(K)):
            u = weights(w[k])
            if correct and m[k] > 0:
                # Batch n was forwarded m_k updates ago; in the first rounds, at the start.
                u = [p - d * float(min(n, m[k])) for p, d in zip(u, delta[k], strict=True)]
            g = backward(flying.pop((k, n)), g, w[k], u)
        p = 1 - min(n / anneal, 1)
        for k in range(K):
            old = [value.clone() for value in weights(w[k])]
            alpha = [group["lr"] for group in step[k].param_groups]
            for group in step[k].param_groups:
                group["lr"] = group["lr"] * max(1, min(n, m[k])) ** -p
            step[k].step()
            step[k].zero_grad()
            for group, own in zip(step[k].param_groups, alpha, strict=True):
                group["lr"] = own
            if m[k] > 0:
                gamma = math.exp(-2.0) ** (1 / m[k])
                moved = zip(delta[k], weights(w[k]), old, strict=True)
                delta[k] = [d * gamma + (new - before) * (1 - gamma) for d, new, before in moved]
        for schedule in rate:
            schedule.step()
    return w, losses
