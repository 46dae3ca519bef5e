"""Accumulated decoupled learning (ADL) as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Zhuang et al., Accumulated Decoupled Learning, ICML 2021, as the authors' code (ZHUANGHP/Accumulated-Decoupled-Learning)
computes it: a late backward has the activations of its forward but the weights of now, every module but the last
multiplies the gradient that it receives by beta, and updates with the sum of the gradients of M micro-batches, at the
rate that one would have.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Gradients, Named, Pass, Tensors, backward, forward, named, weights


def adl(
    stages: list[nn.Module],
    *,
    m: Sequence[int],
    M: int,
    N: int,
    inputs: Callable[[int], Tensors],
    targets: Callable[[int], Tensor],
    loss: Callable[..., Tensor],
    optimizer: Callable[[Named], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    beta: float = 1.0,
    reduction: str = "sum",
    drawing: Callable[[int, int], AbstractContextManager[None]],
) -> tuple[list[nn.Module], list[float]]:
    """Train with updates after every M backwards of a stage.

    Args:
        stages: f_0 .. f_{K-1}, each from the outputs of the one before; left as they are.
        m: staleness of each stage in micro-batches, non-increasing.
        M: micro-batches of an update; update n uses nM .. nM+M-1.
        N: updates.
        inputs: b -> inputs of micro-batch b.
        targets: b -> its targets.
        loss: (outputs, targets) -> mean over the samples.
        optimizer: named parameters of a stage -> its optimizer.
        scheduler: optimizer -> what is stepped after each update.
        beta: factor of what a stage receives from the one above.
        reduction: of the gradients of an update's micro-batches: ``sum`` or ``mean``.
        drawing: (k, b) -> the context in which a forward draws.

    Returns:
        The trained stages and the loss of every update, averaged over micro-batches.
    """
    K, share = len(stages), {"sum": 1.0, "mean": 1.0 / M}[reduction]
    w = [copy.deepcopy(f) for f in stages]
    step = [optimizer(named(f)) for f in w]
    rate = [scheduler(each) for each in step] if scheduler else []
    flying: dict[tuple[int, int], Pass] = {}
    total = [0.0] * N
    for t in range(N * M):
        for k in range(K):
            # Round 0 fills the pipeline with micro-batches 0 .. m_k; each later round forwards one more.
            for b in range(m[k] + t if t else 0, min(m[k] + t, N * M - 1) + 1):
                x = flying[k - 1, b].y if k else inputs(b)
                with drawing(k, b):
                    new = forward(w[k], x, k > 0)
                    if k == K - 1:
                        new = new._replace(y=(loss(*new.y, targets(b)),))
                        total[b // M] += new.y[0].item()
                flying[k, b] = new
        g: Gradients = (torch.full_like(flying[K - 1, t].y[0], share),)
        for k in reversed(range(K)):
            if k < K - 1:
                g = tuple(None if d is None else d * beta for d in g)
            g = backward(flying.pop((k, t)), g, w[k], weights(w[k]))
        if (t + 1) % M == 0:
            for each in step:
                each.step()
                each.zero_grad()
            for schedule in rate:
                schedule.step()
    return w, [value / M for value in total]
