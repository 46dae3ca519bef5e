"""SpecTrain as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Chen, Yang and Cheng, arXiv 1809.02839: forward and backward of a batch both have the weights predicted for one
moment, W_hat = W - s eta v with v the smoothed gradient; of K stages, stage k predicts s = floor(k/2) + K-k-1 updates
ahead in the forward and s = floor(k/2) in the backward.  K-k-1 is the delay m_k, less in the first batches; k is
m_0 - m_k, and 0 without any delay.  The direction v is the momentum buffer, or Adam's as in PipeOptim.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Gradients, Named, Pass, Tensors, backward, forward, named
from stalegrid.studies.reference.pipeoptim import predicted


def spectrain(
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
    """Train with predicted weights in forwards and backwards.

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
                w_hat = predicted(w[k], step[k], min(b, m[k]) + (m[0] - m[k]) // 2)
                with drawing(k, b):
                    new = forward(w[k], x, k > 0, w_hat)
                    if k == K - 1:
                        new = new._replace(y=(loss(*new.y, targets(b)),))
                        losses.append(new.y[0].item())
                flying[k, b] = new
        g: Gradients = (torch.ones_like(flying[K - 1, n].y[0]),)
        for k in reversed(range(K)):
            w_hat = predicted(w[k], step[k], (m[0] - m[k]) // 2)
            g = backward(flying.pop((k, n)), g, w[k], w_hat)
        for each in step:
            each.step()
            each.zero_grad()
        for schedule in rate:
            schedule.step()
    return w, losses
