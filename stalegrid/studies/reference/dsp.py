"""Diversely stale parameters (DSP) as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Xu, Huo and Huang, arXiv 1909.02625, layer-wise staleness: the forward of a batch keeps nothing but the stage's input;
m_k updates later its backward computes the stage again at the weights of then.  The second forward draws the same
dropout and counts in no running statistics.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Gradients, Named, Tensors, backward, forward, named


def dsp(
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
    """Train with inputs kept and stages computed again.

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
    messages: dict[tuple[int, int], Tensors] = {}  # outputs on their way up
    kept: dict[tuple[int, int], Tensors] = {}  # inputs until their backward
    losses: list[float] = []
    for n in range(N):
        for k in range(K):
            # Round 0 fills the pipeline with batches 0 .. m_k; each later round forwards one more.
            for b in range(m[k] + n if n else 0, min(m[k] + n, N - 1) + 1):
                kept[k, b] = messages.pop((k - 1, b)) if k else inputs(b)
                with drawing(k, b):
                    messages[k, b] = forward(w[k], kept[k, b], k > 0).y
                    if k == K - 1:
                        losses.append(loss(*messages.pop((k, b)), targets(b)).item())
        g: Gradients = ()
        for k in reversed(range(K)):
            with drawing(k, n):
                again = forward(w[k], kept.pop((k, n)), k > 0, statistics=False)
                if k == K - 1:
                    again = again._replace(y=(loss(*again.y, targets(n)),))
                    g = (torch.ones_like(again.y[0]),)
            g = backward(again, g, w[k])
        for each in step:
            each.step()
            each.zero_grad()
        for schedule in rate:
            schedule.step()
    return w, losses
