"""Synchronous training with a parameter server (hardsync) as one plain loop, and what it shares with softsync.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Zhang, Gupta, Lian, Liu, arXiv 1511.05950: the server waits for a gradient of every learner, all at its present
weights, and takes a step with their mean.  A learner has buffers of its own; the server, their mean or last count.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Named, Tensors, backward, forward, named, weights

Summed = list[Tensor | None]
"""In the order of the parameters; None where a batch did not use one."""


def hardsync(
    model: nn.Module,
    *,
    learners: int,
    N: int,
    inputs: Callable[[int, int], Tensors],
    targets: Callable[[int, int], Tensor],
    loss: Callable[..., Tensor],
    optimizer: Callable[[Named], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    drawing: Callable[[int, int, int], AbstractContextManager[None]],
    momentum: float | None = None,
) -> tuple[nn.Module, list[float]]:
    """Train with the mean gradient of all learners.

    Args:
        model: left as it is.
        learners: lambda.
        N: updates; update n uses batch n of every learner.
        inputs: (s, b) -> inputs of batch b of learner s.
        targets: (s, b) -> its targets.
        loss: (outputs, targets) -> mean over the samples.
        optimizer: named parameters -> the server's optimizer.
        scheduler: optimizer -> what is stepped after each update.
        drawing: (s, 0, b) -> the context in which a forward draws.
        momentum: of the gradients that each learner sends; None for none.

    Returns:
        The server's model and the loss of every update, averaged over learners.
    """
    w = copy.deepcopy(model).train()
    f = [copy.deepcopy(w) for _ in range(learners)]
    step = optimizer(named(w))
    rate = [scheduler(step)] if scheduler else []
    v: dict[int, Summed] = {}
    losses = []
    for n in range(N):
        G, B, total = Summed(), list[list[Tensor]](), 0.0
        for s in range(learners):
            x = inputs(s, n)
            with drawing(s, 0, n):
                value, g = gradient(f[s], weights(w), x, targets(s, n), loss)
            if momentum is not None:
                g = moved(v, s, g, momentum)
            # In the order of the learners, since a sum in another order has other bits.
            G, total = add(G, g), total + value
            B.append([b.clone() for b in f[s].buffers()])
        write(w, G, B, learners)
        step.step()
        step.zero_grad()
        for schedule in rate:
            schedule.step()
        losses.append(total / learners)
    return w, losses


def gradient(
    f: nn.Module, w: list[Tensor], x: Tensors, target: Tensor, loss: Callable[..., Tensor]
) -> tuple[float, Summed]:
    """Return loss and gradients of a batch at weights w; of ``f`` only the buffers matter, and they move on."""
    f.zero_grad()
    done = forward(f, x, False, w)
    value = loss(*done.y, target)
    backward(done._replace(y=(value,)), (torch.ones_like(value),), f)
    return value.item(), [p.grad for p in f.parameters()]


def moved(v: dict[int, Summed], s: int, g: Summed, momentum: float) -> Summed:
    """Return what learner s sends: its velocities, which move where there is a gradient."""
    old = v.get(s, [None] * len(g))
    new = [d if u is None or d is None else momentum * u + d for u, d in zip(old, g, strict=True)]
    v[s] = [u if d is None else d for u, d in zip(old, new, strict=True)]
    return new


def add(total: Summed, new: Summed, f: float = 1.0) -> Summed:
    """Return total + f new; the total of nothing is an empty list."""
    return [_add(old, x, f) for old, x in zip(total or [None] * len(new), new, strict=True)]


def _add(old: Tensor | None, new: Tensor | None, f: float) -> Tensor | None:
    if new is None:
        return old
    if old is None:
        return new * f if f != 1 else new.clone()
    return torch.add(old, new, alpha=f)


def write(w: nn.Module, G: Summed, B: list[list[Tensor]], c: int) -> None:
    """Give the server the mean of c gradients, whose sum is G, and of their buffers B; the last of those that count."""
    for p, g in zip(w.parameters(), G, strict=True):
        p.grad = g / c if g is not None and c > 1 else g
    for live, seen in zip(w.buffers(), zip(*B, strict=True), strict=True):
        unlike = live.is_floating_point() and not all(torch.equal(b, seen[0]) for b in seen)
        live.copy_(sum(seen[1:], seen[0]) / c if unlike else seen[-1])
