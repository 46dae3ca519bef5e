"""Synchronous training of S groups x K stages as one plain loop: sgd, data-parallel, gpipe and 1f1b.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

A pipeline that flushes at every update (GPipe, arXiv 1811.06965; PipeDream-flush, arXiv 2006.09503) computes
the exact gradient, so its stages are simply composed here and autograd runs through all of them.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Named, named

Tensors = tuple[Tensor, ...]


def synchronous(
    stages: list[nn.Module],
    *,
    S: int,
    M: int,
    N: int,
    inputs: Callable[[int, int], Tensors],
    targets: Callable[[int, int], Tensor],
    loss: Callable[..., Tensor],
    optimizer: Callable[[Named], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    reduction: str = "mean",
    drawing: Callable[[int, int, int], AbstractContextManager[None]],
    B: Sequence[int] | None = None,
) -> tuple[list[list[nn.Module]], list[list[float]]]:
    """Train S copies of K stages for N updates, each with the mean gradient of all groups and micro-batches.

    Args:
        stages: f_0 .. f_{K-1}, each from the outputs of the one before; left as they are.
        S: groups.
        M: micro-batches of an update; update n uses nM .. nM+M-1.
        N: updates.
        inputs: (s, b) -> inputs of micro-batch b of group s.
        targets: (s, b) -> its targets.
        loss: (outputs, targets) -> mean over the samples.
        optimizer: named parameters of a unit -> its optimizer.
        scheduler: optimizer -> what is stepped after each update.
        reduction: of the gradients of an update's micro-batches: ``mean`` or ``sum``; those of groups are averaged.
        drawing: (s, k, b) -> the context in which a forward draws.
        B: samples of each group in an update, which weigh the mean over groups; alike if left out.

    Returns:
        The trained stages [s][k] and the losses [s][n], averaged over micro-batches.
    """
    w = [copy.deepcopy(stages) for _ in range(S)]  # all stages at once: what several use stays one parameter
    steps = [optimizer(own) for group in w for own in _owned(group)]
    rates = [scheduler(step) for step in steps] if scheduler else []
    losses: list[list[float]] = [[] for _ in range(S)]
    share = {"sum": 1.0, "mean": 1.0 / M}[reduction]
    q = [1.0] * S if B is None else [size / max(B) for size in B]
    for n in range(N):
        for s in range(S):
            total = 0.0
            for b in range(n * M, (n + 1) * M):
                value = _forward(w[s], inputs(s, b), targets(s, b), loss, s, b, drawing)
                torch.autograd.backward(value, torch.full_like(value, share))
                total += value.item()
            losses[s].append(total / M)
        if S > 1:
            for replicas in zip(*([p for own in _owned(group) for _, p in own] for group in w), strict=True):
                _average(replicas, q)
        for step in steps:
            step.step()
            step.zero_grad()
        for rate in rates:
            rate.step()
    return w, losses


def _owned(group: list[nn.Module]) -> list[Named]:
    """Return the trained parameters of each stage, without those of earlier stages that it uses too."""
    first = {p: k for k, f in reversed(list(enumerate(group))) for p in f.parameters()}
    return [[(name, p) for name, p in named(f) if first[p] == k] for k, f in enumerate(group)]


def _forward(
    group: list[nn.Module],
    x: Tensors,
    target: Tensor,
    loss: Callable[..., Tensor],
    s: int,
    b: int,
    drawing: Callable[[int, int, int], AbstractContextManager[None]],
) -> Tensor:
    """Return the loss of one micro-batch."""
    for k, f in enumerate(group):
        with drawing(s, k, b):
            y = f(*x)
        x = y if isinstance(y, tuple) else (y,)
    return loss(*x, target)


def _average(replicas: tuple[nn.Parameter, ...], q: Sequence[float]) -> None:
    """Replace the gradients of one parameter in all groups by their mean, to which group s gives q_s."""
    found = [(p.grad, w) for p, w in zip(replicas, q, strict=True) if p.grad is not None]
    if not found:
        return
    # From zeros, one group after the other: a sum in another order has other bits.
    mean = torch.zeros_like(found[0][0])
    for g, w in found:
        mean = mean + w * g
    mean = mean / sum(q)
    for p in replicas:
        p.grad = mean.clone()
