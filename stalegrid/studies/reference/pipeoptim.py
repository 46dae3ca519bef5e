"""PipeOptim as one plain loop.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Guan et al., arXiv 2312.00839: a batch is forwarded with the weights that are predicted for its update, s updates
ahead, w_hat = w - lr s d, where d is the direction of the optimizer's last step (momentum SGD, Adam, AdamW).  Then the
weights are restored, and the backward has those of now.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.passes import Gradients, Named, Pass, Tensors, backward, forward, named, weights


def pipeoptim(
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
    """Train with predicted weights in the forwards.

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
                # So many updates from here to the batch's own; fewer for those of the first round.
                w_hat = predicted(w[k], step[k], min(b, m[k]))
                with drawing(k, b):
                    new = forward(w[k], x, k > 0, w_hat)
                    if k == K - 1:
                        new = new._replace(y=(loss(*new.y, targets(b)),))
                        losses.append(new.y[0].item())
                flying[k, b] = new
        g: Gradients = (torch.ones_like(flying[K - 1, n].y[0]),)
        for k in reversed(range(K)):
            g = backward(flying.pop((k, n)), g, w[k], weights(w[k]))
        for each in step:
            each.step()
            each.zero_grad()
        for schedule in rate:
            schedule.step()
    return w, losses


def predicted(f: nn.Module, step: Optimizer, s: int) -> list[Tensor]:
    """Predict the weights of a stage s updates ahead: w - lr s d, or w where the optimizer has no direction yet."""
    w_hat = {p: p.data for p in f.parameters()}
    if s > 0:
        for group in step.param_groups:
            for p in group["params"]:
                d = _direction(step.state.get(p, {}), group)
                if d is not None:
                    w_hat[p] = p.data - d * (group["lr"] * s)
    return list(w_hat.values())


def _direction(state: dict[str, Any], group: dict[str, Any]) -> Tensor | None:
    """Return what a step of the optimizer subtracts, over its rate: the buffer of SGD, m_hat / (sqrt(v_hat) + eps)."""
    buffer: Tensor | None = state.get("momentum_buffer")
    if "exp_avg" not in state:
        return buffer
    t, (beta1, beta2) = int(state["step"]), group["betas"]
    d: Tensor = (state["exp_avg"] / (1 - beta1**t)) / ((state["exp_avg_sq"] / (1 - beta2**t)).sqrt() + group["eps"])
    return d
