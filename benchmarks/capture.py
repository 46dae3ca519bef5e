"""A captured decoder of text against the plain one, in the same loop of one process.

The captured one is a single stage of all operations, so that nothing is counted but what a capture costs.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import THREADS, Row, interleave, ratio
from stalegrid.models import GPT
from stalegrid.partition.chain import Chain
from stalegrid.partition.export import export
from stalegrid.partition.trace import trace

CLASSES, CONTEXT, BATCH = 64, 128, 8
WARM_UP, UPDATES = 3, 20

PLAIN, FX, EXPORT = "plain, samples/s", "by torch.fx, samples/s", "by torch.export, samples/s"


def run(turns: int) -> Row:
    """Measure samples a second."""
    torch.set_num_threads(THREADS)
    competitors = {
        PLAIN: partial(_rate, lambda model, x: model),
        FX: partial(_rate, partial(_captured, trace)),
        EXPORT: partial(_rate, partial(_captured, export)),
    }
    figures = interleave(competitors, turns)
    ratios = [ratio(figures, way, PLAIN, at_least=0.97) for way in (FX, EXPORT)]
    return Row(figures, ratios, [f"4 layers of width 128, {BATCH} samples of {CONTEXT} characters, AdamW, one thread"])


def _captured(capture: Callable[[nn.Module, tuple[Tensor, ...]], Chain], model: nn.Module, x: Tensor) -> nn.Module:
    chain = capture(model, (x,))
    return chain.stage(0, len(chain.nodes))


def _rate(wrap: Callable[[nn.Module, Tensor], nn.Module]) -> float:
    torch.manual_seed(0)
    model = GPT(CLASSES, CONTEXT).train()
    x = torch.randint(CLASSES, (BATCH, CONTEXT + 1))
    called = wrap(model, x[:, :-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    start = 0.0
    for update in range(WARM_UP + UPDATES):
        if update == WARM_UP:
            start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(called(x[:, :-1]), x[:, 1:]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return UPDATES * BATCH / (time.perf_counter() - start)
