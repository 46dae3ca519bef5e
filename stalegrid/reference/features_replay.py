"""Features replay as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Huo, Gu and Huang, arXiv 1807.04511, Algorithm 1: module k plays the features h_{k-1} of its history again, with the
weights of now, and applies to the result the error gradient delta_k from the module above; h_{k-1} is m_k = K-1-k
iterations old.  The replay draws the same dropout and, unlike the authors' code, counts in no running statistics.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.reference.passes import Tensors, backward, forward


def features_replay(
    stages: list[nn.Module],
    *,
    m: Sequence[int],
    N: int,
    inputs: Callable[[int], Tensors],
    targets: Callable[[int], Tensor],
    loss: Callable[..., Tensor],
    optimizer: Callable[[list[nn.Parameter]], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    drawing: Callable[[int, int], AbstractContextManager[None]],
) -> tuple[list[nn.Module], list[float]]:
    """Train with features replayed from histories.

    Args:
        stages: f_0 .. f_{K-1}, each from the outputs of the one before; left as they are.
        m: length of each module's history less one, K-1-k in the paper.
        N: updates; update n uses batch n.
        inputs: b -> inputs of batch b.
        targets: b -> its targets.
        loss: (outputs, targets) -> mean over the samples.
        optimizer: parameters of a stage -> its optimizer.
        scheduler: optimizer -> what is stepped after each update.
        drawing: (k, b) -> the context in which a forward draws.

    Returns:
        The trained stages and the loss of every update.
    """
    K = len(stages)
    w = [copy.deepcopy(f) for f in stages]
    step = [optimizer([p for p in f.parameters() if p.requires_grad]) for f in w]
    rate = [scheduler(each) for each in step] if scheduler else []
    h: dict[tuple[int, int], Tensors] = {}  # features that go up
    history: dict[tuple[int, int], Tensors] = {}  # features until they are replayed
    losses: list[float] = []
    for n in range(N):
        for k in range(K):
            for b in range(m[k] + n if n else 0, min(m[k] + n, N - 1) + 1):
                history[k, b] = h.pop((k - 1, b)) if k else inputs(b)
                with drawing(k, b):
                    h[k, b] = forward(w[k], history[k, b], k > 0).y
                    if k == K - 1:
                        losses.append(loss(*h.pop((k, b)), targets(b)).item())
        delta: Tensors = ()
        for k in reversed(range(K)):
            with drawing(k, n):
                replay = forward(w[k], history.pop((k, n)), k > 0, statistics=False)
                if k == K - 1:
                    replay = replay._replace(y=(loss(*replay.y, targets(n)),))
                    delta = (torch.ones_like(replay.y[0]),)
            delta = backward(replay, delta, w[k])
        for each in step:
            each.step()
            each.zero_grad()
        for schedule in rate:
            schedule.step()
    return w, losses
