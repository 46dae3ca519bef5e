"""PipeDream-2BW as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Narayanan et al., arXiv 2006.09503, section 3.1, double-buffered weights: W(t+1) = W(t) - nu grad f(W(t-1)), the
gradient being the mean over the M micro-batches of update t.  Running statistics are not versions: they follow the
micro-batches.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Gradients, Named, Pass, Tensors, backward, forward, named, weights


def pipedream_2bw(
    stages: list[nn.Module],
    *,
    M: int,
    N: int,
    inputs: Callable[[int], Tensors],
    targets: Callable[[int], Tensor],
    loss: Callable[..., Tensor],
    optimizer: Callable[[Named], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    reduction: str = "mean",
    drawing: Callable[[int, int], AbstractContextManager[None]],
) -> tuple[list[nn.Module], list[float]]:
    """Train with every gradient one update late.

    Args:
        stages: f_0 .. f_{K-1}, each from the outputs of the one before; left as they are.
        M: micro-batches of an update; update n uses nM .. nM+M-1.
        N: updates.
        inputs: b -> inputs of micro-batch b.
        targets: b -> its targets.
        loss: (outputs, targets) -> mean over the samples.
        optimizer: named parameters of a stage -> its optimizer.
        scheduler: optimizer -> what is stepped after each update.
        reduction: of the gradients of an update's micro-batches: ``mean`` or ``sum``.
        drawing: (k, b) -> the context in which a forward draws.

    Returns:
        The trained stages and the loss of every update, averaged over micro-batches.
    """
    K, share = len(stages), {"sum": 1.0, "mean": 1.0 / M}[reduction]
    w = [copy.deepcopy(f) for f in stages]
    step = [optimizer(named(f)) for f in w]
    rate = [scheduler(each) for each in step] if scheduler else []
    W = [[p.clone() for p in weights(f)] for f in w]  # the version before that of w
    losses: list[float] = []
    for n in range(N):
        total = 0.0
        for b in range(n * M, (n + 1) * M):
            passes: list[Pass] = []
            for k in range(K):
                with drawing(k, b):
                    new = forward(w[k], passes[-1].y if k else inputs(b), k > 0, W[k])
                    if k == K - 1:
                        new = new._replace(y=(loss(*new.y, targets(b)),))
                        total += new.y[0].item()
                passes.append(new)
            g: Gradients = (torch.full_like(passes[-1].y[0], share),)
            for k in reversed(range(K)):
                g = backward(passes[k], g, w[k])
        losses.append(total / M)
        W = [[p.clone() for p in weights(f)] for f in w]
        for each in step:
            each.step()
            each.zero_grad()
        for schedule in rate:
            schedule.step()
    return w, losses
