"""A grid whose groups average in pairs, in a recorded order, as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

AD-PSGD: Lian et al., arXiv 1710.06952.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Gradients, Named, Pass, Tensors, backward, forward, named, weights


class Met(NamedTuple):
    """After update n: the own question that was answered, others' that it answers as (group, number), and its next."""

    update: int
    answered: int | None
    takes: Sequence[tuple[int, int]]
    asks: int | None


def pairs(
    stages: list[nn.Module],
    *,
    S: int,
    m: Sequence[int],
    N: int,
    inputs: Callable[[int, int], Tensors],
    targets: Callable[[int, int], Tensor],
    loss: Callable[..., Tensor],
    optimizer: Callable[[Named], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    view: str = "stashed",
    met: Callable[[int, int], Iterable[Met]],
    drawing: Callable[[int, int, int], AbstractContextManager[None]],
) -> tuple[list[list[nn.Module]], list[list[float]]]:
    """Train S copies of K stages for N rounds, each unit as far as others let it.

    Args:
        stages: f_0 .. f_{K-1}, each from the outputs of the one before; left as they are.
        S: groups.
        m: staleness of each stage in updates, non-increasing.
        N: updates; update n uses batch n.
        inputs: (s, b) -> inputs of batch b of group s.
        targets: (s, b) -> its targets.
        loss: (outputs, targets) -> mean over the samples.
        optimizer: named parameters of a unit -> its optimizer.
        scheduler: optimizer -> what is stepped after each update.
        view: weights that a backward reads: ``stashed`` of the batch's forward, or ``current``.
        met: (s, k) -> whom the unit met, in order.
        drawing: (s, k, b) -> the context in which a forward draws.

    Returns:
        The trained stages [s][k] and the losses [s][n].
    """
    K = len(stages)
    w = [[copy.deepcopy(f) for f in stages] for _ in range(S)]
    step = {(s, k): optimizer(named(w[s][k])) for s in range(S) for k in range(K)}
    rate = {u: scheduler(step[u]) for u in step} if scheduler else {}
    flying: dict[tuple[int, int, int], Pass] = {}
    gradients: dict[tuple[int, int, int], Gradients] = {}
    questions: dict[tuple[int, int, int], list[Tensor]] = {}  # by asker, stage, number
    answers: dict[tuple[int, int, int], list[Tensor]] = {}
    losses: list[list[float]] = [[] for _ in range(S)]

    def approach(s: int, k: int, theirs: list[Tensor], own: list[Tensor]) -> None:
        trained = sum(p.requires_grad for p in w[s][k].parameters())
        for i, (value, a, b) in enumerate(zip(_values(w[s][k]), theirs, own, strict=True)):
            gap = a - b
            if i >= trained:
                gap = torch.where(gap.isfinite(), gap, 0.0)
            value.copy_(value + gap * 0.5)

    def unit(s: int, k: int) -> Iterator[None]:
        """Do all that a unit does, giving way where it lacks something."""
        meetings = iter(met(s, k))
        now = next(meetings, None)
        for n in range(N):
            for b in range(m[k] + n if n else 0, min(m[k] + n, N - 1) + 1):
                while k and (s, k - 1, b) not in flying:
                    yield
                x = flying[s, k - 1, b].y if k else inputs(s, b)
                with drawing(s, k, b):
                    new = forward(w[s][k], x, k > 0)
                    if k == K - 1:
                        new = new._replace(y=(loss(*new.y, targets(s, b)),))
                        losses[s].append(new.y[0].item())
                        gradients[s, k, b] = (torch.ones_like(new.y[0]),)
                flying[s, k, b] = new
            while (s, k, n) not in gradients:
                yield
            read = weights(w[s][k]) if view == "current" else None
            gradients[s, k - 1, n] = backward(flying.pop((s, k, n)), gradients.pop((s, k, n)), w[s][k], read)
            step[s, k].step()
            step[s, k].zero_grad()
            if rate:
                rate[s, k].step()
            while now is not None and now.update == n:
                if now.answered is not None:
                    while (s, k, now.answered) not in answers:
                        yield
                    approach(s, k, answers[s, k, now.answered], questions[s, k, now.answered])
                for r, number in now.takes:
                    while (r, k, number) not in questions:
                        yield
                    answers[r, k, number] = copy.deepcopy(_values(w[s][k]))
                    approach(s, k, questions[r, k, number], answers[r, k, number])
                if now.asks is not None:
                    questions[s, k, now.asks] = copy.deepcopy(_values(w[s][k]))
                now = next(meetings, None)

    left = [unit(s, k) for s in range(S) for k in range(K)]
    while left:
        left = [one for one in left if next(one, True) is None]
    return w, losses


def _values(f: nn.Module) -> list[Tensor]:
    """Return the tensors themselves that groups average."""
    return [p.data for p in f.parameters() if p.requires_grad] + [b for b in f.buffers() if b.is_floating_point()]
