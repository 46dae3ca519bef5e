"""Staleness-aware asynchronous training with a parameter server (softsync) as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Zhang, Gupta, Lian, Liu, arXiv 1511.05950: the server takes a step with every c gradients, each weighted by tau, the
updates since its learner pulled; a learner pulls when it has delivered.  dc: Zheng et al., arXiv 1609.08326.
"""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.hardsync import Summed, add, gradient, moved, write
from stalegrid.studies.reference.passes import Named, Tensors, named, weights


def softsync(
    model: nn.Module,
    *,
    order: Sequence[int],
    learners: int,
    c: int,
    N: int,
    inputs: Callable[[int, int], Tensors],
    targets: Callable[[int, int], Tensor],
    loss: Callable[..., Tensor],
    optimizer: Callable[[Named], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    drawing: Callable[[int, int, int], AbstractContextManager[None]],
    rule: str | tuple[str, float] = "constant",
    momentum: float | None = None,
) -> tuple[nn.Module, list[float]]:
    """Train with gradients in the order in which they are delivered.

    Args:
        model: left as it is.
        order: the learner of each delivery, c N of them or more.
        learners: lambda.
        c: gradients of an update.
        N: updates.
        inputs: (s, b) -> inputs of batch b of learner s.
        targets: (s, b) -> its targets.
        loss: (outputs, targets) -> mean over the samples.
        optimizer: named parameters -> the server's optimizer.
        scheduler: optimizer -> what is stepped after each update.
        drawing: (s, 0, b) -> the context in which a forward draws.
        rule: ``constant``, ``inverse``, (``exponential``, beta) or (``dc``, lambda).
        momentum: of the gradients that each learner sends; None for none.

    Returns:
        The server's model and the loss of every update, averaged over its gradients.
    """
    w = copy.deepcopy(model).train()
    f = [copy.deepcopy(w) for _ in range(learners)]
    step = optimizer(named(w))
    rate = [scheduler(step)] if scheduler else []
    pulled = [[p.clone() for p in weights(w)] for _ in range(learners)]
    j, b = [0] * learners, [0] * learners
    v: dict[int, Summed] = {}
    G, B, total, losses = Summed(), list[list[Tensor]](), 0.0, list[float]()
    for t in range(c * N):
        s, i = order[t], t // c
        x = inputs(s, b[s])
        with drawing(s, 0, b[s]):
            value, g = gradient(f[s], pulled[s], x, targets(s, b[s]), loss)
        if momentum is not None:
            g = moved(v, s, g, momentum)
        scale, lam = _factors(rule, i - j[s])
        if lam is not None:
            pairs = zip(g, weights(w), pulled[s], strict=True)
            g = [None if d is None else d + lam * d * d * (now - then) for d, now, then in pairs]
        G, total = add(G, g, scale), total + value
        B.append([q.clone() for q in f[s].buffers()])
        if (t + 1) % c == 0:
            write(w, G, B, c)
            step.step()
            step.zero_grad()
            for schedule in rate:
                schedule.step()
            losses.append(total / c)
            G, B, total = [], [], 0.0
        pulled[s], j[s], b[s] = [p.clone() for p in weights(w)], (t + 1) // c, b[s] + 1
    return w, losses


def _factors(rule: str | tuple[str, float], tau: int) -> tuple[float, float | None]:
    """Return what a gradient is multiplied by, and lambda where it is compensated."""
    match rule:
        case "constant":
            return 1.0, None
        case "inverse":
            return 1 / max(1, tau), None
        case ("exponential", beta):
            return math.exp(-beta * tau), None
        case ("dc", lam):
            return 1.0, lam
    raise ValueError(rule)
