"""PipeDream as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Narayanan et al., SOSP 2019, section 3.3, weight stashing: of K stages, stage k's gradient is that of the batch's own
forward, w(t+1) = w(t) - nu grad f(w_0(t-K+1), w_1(t-K+2), .., w_{K-1}(t)), here with any delays m_k for K-1-k.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Gradients, Named, Pass, Tensors, backward, forward, named


def pipedream(
    stages: list[nn.Module],
    *,
    m: Sequence[int],
    N: int,
    inputs: Callable[[int], Tensors],
    targets: Callable[[int], Tensor],
    loss: Callable[..., Tensor],
    optimizer: Callable[[Named], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    drawing: Callable[[int, int], AbstractContextManager[None]],
) -> tuple[list[nn.Module], list[float]]:
    """Train with the weights of a batch's forward stashed for its backward.

    Args:
        stages: f_0 .. f_{K-1}, each from the outputs of the one before; left as they are.
        m: staleness of each stage in updates, non-increasing.
        N: updates; update n uses batch n.
        inputs: b -> inputs of batch b.
        targets: b -> its targets.
        loss: (outputs, targets) -> mean over the samples.
        optimizer: named parameters of a stage -> its optimizer.
        scheduler: optimizer -> what is stepped after each update.
        drawing: (k, b) -> the context in which a forward draws.

    Returns:
        The trained stages and the loss of every update.
    """
    K = len(stages)
    w = [copy.deepcopy(f) for f in stages]
    step = [optimizer(named(f)) for f in w]
    rate = [scheduler(each) for each in step] if scheduler else []
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
            g = backward(flying.pop((k, n)), g, w[k])
        for each in step:
            each.step()
            each.zero_grad()
        for schedule in rate:
            schedule.step()
    return w, losses
