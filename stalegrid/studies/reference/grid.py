"""The grid of S groups x K stages as one plain loop of lock-step rounds.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Fully decoupled backpropagation with consensus averaging: Pham and Ahn, arXiv 2509.05679.  Staleness m_k of
stage k: Xu, Huo and Huang, arXiv 1909.02625.  Lag rules ``delta`` and ``ema`` and sparse averaging: AsyncMesh, arXiv
2601.22442.
"""

import copy
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.studies.reference.between import Rule
from stalegrid.studies.reference.choco import choco
from stalegrid.studies.reference.coded import Carried
from stalegrid.studies.reference.outer import DiLoCo, NoLoCo
from stalegrid.studies.reference.passes import Gradients, Named, Pass, Tensors, backward, forward, named, weights


def grid(
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
    P: Callable[[int], NDArray[np.float64]] | None = None,
    adapt_first: bool = False,
    H: int = 1,
    c: int = 0,
    mix_momentum: bool = False,
    B: Sequence[int] = (),
    fragments: bool = False,
    outer: Callable[[Tensor], DiLoCo | NoLoCo] | None = None,
    rule: str = "own-current",
    p: float = 1.0,
    parts: Callable[[int, int], torch.Generator] | None = None,
    planned: int = 0,
    between: Rule | None = None,
    gamma: float | None = None,
    codecs: Mapping[str, str] | None = None,
    drawing: Callable[[int, int, int], AbstractContextManager[None]],
) -> tuple[list[list[nn.Module]], list[list[float]]]:
    """Train S copies of K stages for N rounds.

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
        P: mixing turn -> S x S shares; None for no mixing.
        adapt_first: mix what the optimizer's step made (adapt-then-combine) instead of what it started from.
        H: updates from one mixing to the next.
        c: age of the neighbours' values, in updates.
        mix_momentum: whether momentum buffers, or Adam's first moments, are mixed like parameters.
        B: samples of each group's batch; alike if left out.
        fragments: whether stage k mixes floor(k H / K) updates after the first, and not with it.
        outer: a parameter -> its outer optimizer, over what ``P`` lets meet; None where parameters are averaged.
        rule: what is made of values of round n-c: ``own-current``, ``delta`` or ``ema``.
        p: share of every parameter that is mixed at once.
        parts: (k, cycle) -> generator that deals out the parameters of stage k for a cycle of mixing turns.
        planned: updates by which the decay of ``ema`` has risen.
        between: how groups mix instead, where they do not average.
        gamma: that of CHOCO, which then moves parameters in the place of averaging; None for averaging.
        codecs: of activations, gradients and parameters, by these names: see :class:`Carried`.
        drawing: (s, k, b) -> the context in which a forward draws.

    Returns:
        The trained stages [s][k] and the losses [s][n].
    """
    K, statistics = len(stages), [sum(b.is_floating_point() for b in f.buffers()) for f in stages]
    units = [(s, k) for s in range(S) for k in range(K)]
    w = [[copy.deepcopy(f) for f in stages] for _ in range(S)]
    step = {(s, k): optimizer(named(w[s][k])) for s, k in units}
    rate = {u: scheduler(step[u]) for u in units} if scheduler else {}
    flying: dict[tuple[int, int, int], Pass] = {}
    losses: list[list[float]] = [[] for _ in range(S)]
    apart = {(s, k): [outer(p.data) for p in _trained(w[s][k])] for s, k in units} if outer else {}
    X: deque[dict[tuple[int, int], list[Tensor]]] = deque(maxlen=c + 1)  # rounds n-c .. n
    Y: deque[dict[tuple[int, int, int], list[Tensor]]] = deque(maxlen=c + 1)  # what arrives of them, by receiver
    xh = [[[p.data * 0 for p in _trained(f)] for _ in range(S)] for f in stages]
    carried = Carried(codecs or {})
    mixings, mean_drift = 0, {u: [torch.zeros_like(value) for value in _mixed(w[u[0]][u[1]], None)] for u in units}

    Q = math.ceil(1 / p - 1e-9)

    def beta(n: int) -> float:
        rising = (n - 1000) / (planned - 1000) if n > 1000 else 0.0
        return 0.5 + (0.99 - 0.5) * (1.0 - math.cos(math.pi * rising)) / 2.0

    def mixed() -> dict[tuple[int, int], list[Tensor]]:
        return {(s, k): _mixed(w[s][k], step[s, k] if mix_momentum else None) for s, k in units}

    def arrived(s: int, k: int, y: Tensors) -> Tensors:
        return tuple(t for t in carried.tensors("activation", (s, k), y) if t is not None)

    def send() -> None:
        X.append(copy.deepcopy(mixed()))
        Y.append({})
        if P is None or "parameters" not in (codecs or {}) or gamma is not None or (n + c + 1) % H or n + c >= N:
            return
        takes = P((n + c + 1) // H - 1)
        for (r, k), values in X[-1].items():
            trained = len(_trained(w[r][k]))
            for s in (s for s in range(S) if s != r and takes[s, r] != 0):
                Y[-1][s, r, k] = carried.parameters((r, s, k), values[:trained]) + values[trained:]

    for n in range(N):
        if between is not None:
            between.opened(n, w)
        if not adapt_first:
            send()
        for k in range(K):
            for s in range(S):
                # Round 0 fills the pipeline with batches 0 .. m_k; each later round forwards one more.
                for b in range(m[k] + n if n else 0, min(m[k] + n, N - 1) + 1):
                    x = arrived(s, k, flying[s, k - 1, b].y) if k else inputs(s, b)
                    with drawing(s, k, b):
                        new = forward(w[s][k], x, k > 0)
                        if k == K - 1:
                            new = new._replace(y=(loss(*new.y, targets(s, b)),))
                            losses[s].append(new.y[0].item())
                    flying[s, k, b] = new
        for s in range(S):
            g: Gradients = (torch.ones_like(flying[s, K - 1, n].y[0]),)
            for k in reversed(range(K)):
                g = backward(flying.pop((s, k, n)), g, w[s][k], weights(w[s][k]) if view == "current" else None)
                g = tuple(carried.tensors("gradient", (s, k), g)) if k else g
        if between is not None:
            between.stepping(n, w)
        for u in units:
            step[u].step()
            step[u].zero_grad()
            if rate:
                rate[u].step()
        if between is not None:
            between.stepped(n, w)
        if adapt_first:
            send()
        # Stage by stage where they take turns; turn t of stage k ends at update t H + its offset, or H later without.
        late = [k * H // K if fragments else 0 for k in range(K)]
        turns = {k: -(-(n + 1 - late[k]) // H) - (late[k] == 0) for k in range(K) if (n + 1 - late[k]) % H == 0}
        if P is not None and gamma is not None and (n + 1) % H == 0:
            for k in range(K):
                choco(
                    [[p.data for p in _trained(w[s][k])] for s in range(S)],
                    xh[k],
                    P((n + 1) // H - 1),
                    gamma,
                    lambda q: carried.parameters(None, q),
                )
        elif P is not None and gamma is None and n >= c:
            began = {u: [x.phi for x in xs if isinstance(x, NoLoCo)] for u, xs in apart.items()}
            cycle, turn = divmod(mixings, Q)
            mixings += bool(turns)
            for (s, k), values in mixed().items():
                if k not in turns:
                    continue
                share = P(turns[k])
                meet = [r for r in range(S) if r == s or share[s, r] != 0]
                dealt = parts(k, cycle) if parts else torch.Generator()
                own = X[-1 if rule == "own-current" else 0][s, k]
                for i, value in enumerate(values):
                    if i < len(apart.get((s, k), ())):
                        shares, thetas = [float(share[s, r]) for r in meet], [X[0][r, k][i] for r in meet]
                        sizes = [B[r] for r in meet] if B else [1] * len(meet)
                        match apart[s, k][i]:
                            case DiLoCo() as diloco:
                                value.copy_(diloco.step(thetas, shares, sizes, value))
                            case NoLoCo() as noloco:
                                value.copy_(noloco.step(thetas, [began[r, k][i] for r in meet], shares, sizes))
                        continue
                    delta = torch.zeros_like(value)
                    for r in range(S):
                        if r != s and share[s, r] != 0:
                            gap = Y[0].get((s, r, k), X[0][r, k])[i] - own[i]
                            if i >= len(values) - statistics[k]:
                                alike = X[0][r, k][i] == X[0][s, k][i]
                                gap = torch.where(alike | ~gap.isfinite(), 0.0, gap)
                            delta = delta + gap * float(share[s, r])
                    if i < len(values) - statistics[k]:
                        here = part(value, Q, turn, dealt) if Q > 1 else torch.ones_like(value, dtype=torch.bool)
                        if rule == "ema":
                            drift, usual = value - own[i], mean_drift[s, k][i]
                            after = drift if cycle == 0 else usual * beta(n) + drift * (1.0 - beta(n))
                            usual.copy_(torch.where(here, after, usual))
                            delta = delta + (usual - drift)
                        delta = torch.where(here, delta, 0.0)
                    value.copy_(value + delta)
    return w, losses


def part(value: Tensor, parts: int, turn: int, dealt: torch.Generator) -> Tensor:
    """Return which elements are in a part: all are dealt out in the order in which they lie, with blanks behind.

    Args:
        value: a tensor of parameters.
        parts: of a cycle.
        turn: of the cycle.
        dealt: what deals out all tensors of a stage in a cycle, one after the other.
    """
    hand = math.ceil(value.numel() / parts)
    cards = torch.randperm(parts * hand, generator=dealt, dtype=torch.int32)[turn * hand : (turn + 1) * hand]
    here = torch.zeros_like(value, dtype=torch.bool)
    lying = here.as_strided((value.numel(),), (1,))
    lying[cards[cards < value.numel()].long()] = True
    return here


def _mixed(f: nn.Module, momentum: Optimizer | None) -> list[Tensor]:
    """Return the tensors themselves that groups mix; a momentum that is not there yet is a zero."""
    trained = _trained(f)
    states = [momentum.state[p] for p in trained] if momentum else []
    for p, v in zip(trained, states, strict=False):
        if isinstance(momentum, torch.optim.SGD) and v.get("momentum_buffer") is None:
            v["momentum_buffer"] = torch.zeros_like(p.data)
    moments = [v.get("momentum_buffer", v.get("exp_avg", torch.zeros(()))) for v in states]
    return [p.data for p in trained] + moments + [b for b in f.buffers() if b.is_floating_point()]


def _trained(f: nn.Module) -> list[nn.Parameter]:
    return [p for p in f.parameters() if p.requires_grad]
