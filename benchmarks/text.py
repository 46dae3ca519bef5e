"""A decoder of text as a chain of layers, and the text: what this library and its peers train to a test loss.

Does not know: how.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.measure import Skipped
from stalegrid.data import Batches, Slices
from stalegrid.data.text import load_text
from stalegrid.errors import DataError
from stalegrid.models.gpt import DEVIATION, Block
from stalegrid.plans.task import Task

FOLDER = "tinyshakespeare"
"""Of the text, among the data sets."""

CONTEXT, BATCH = 64, 16
EVALUATED = 40
"""Updates between two evaluations: whole periods of whoever averages now and then."""

TESTED = 256
"""Samples of the test set, its first ones."""

LAYERS, WIDTH, HEADS = 8, 128, 4
CUTS: dict[int, tuple[int, ...]] = {1: (), 2: (5,), 4: (3, 5, 7), 8: (2, 3, 4, 5, 6, 7, 8)}
"""The children that begin the later parts, by the number of parts."""

_WARM = 50  # updates in which the rate grows to what it then is


class Embedding(nn.Module):
    """Tokens and their places, as numbers.

    Args:
        classes: tokens there are.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(classes, WIDTH)
        self.places = nn.Parameter(torch.zeros(CONTEXT, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, int64 (B, T), to (B, T, width)."""
        made: Tensor = self.tokens(x) + self.places
        return made


class Head(nn.Module):
    """Scores for the next token.

    Args:
        classes: tokens there are.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.scores = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to (B, classes, T), as ``nn.CrossEntropyLoss`` takes them."""
        scores: Tensor = self.scores(self.norm(x))
        return scores.transpose(1, 2)


def decoder(classes: int) -> nn.Sequential:
    """Return eight blocks with 1.6 million parameters, nothing of which is in two places, as peers want it.

    Args:
        classes: tokens there are.
    """
    blocks = [Block(WIDTH, HEADS, dropout=0.0) for _ in range(LAYERS)]
    model = nn.Sequential(Embedding(classes), *blocks, Head(classes))
    for name, p in model.named_parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=DEVIATION / (2 * LAYERS) ** 0.5 if ".project" in f".{name}" else DEVIATION)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    return model


STEPS: dict[str, Callable[..., Optimizer]] = {
    "AdamW": partial(torch.optim.AdamW, fused=True),
    "NAdam": partial(torch.optim.NAdam, betas=(0.99, 0.999), weight_decay=0.01, decoupled_weight_decay=True),
}
"""Optimizers by name; the second one as ``async-nesterov`` asks for it, with as much decay as the first."""


def text(folder: Path, seed: int, rate: float, optimizer: str = "AdamW") -> Task:
    """Return the model with its first weights, the text, and who makes the steps.

    Args:
        folder: holds the folder of the text.
        seed: of the first weights.
        rate: of learning.
        optimizer: by name.

    Raises:
        Skipped: there is no text.
    """
    try:
        train, test = load_text(folder / FOLDER, CONTEXT)
    except DataError as problem:
        raise Skipped(f"needs a text (--data-dir): {problem}") from problem
    torch.manual_seed(seed)
    return Task(
        model=decoder(train.classes),
        data=train,
        loss=nn.CrossEntropyLoss(),
        optimizer=partial(STEPS[optimizer], lr=rate),
        scheduler=partial(LambdaLR, lr_lambda=_warming),
        test=test,
    )


def batches(task: Task, seed: int, groups: int) -> Batches:
    """Return what a number of processes train on, together the same samples at every update, however many they are."""
    return Batches(task.data, groups=groups, batch_size=BATCH // groups, seed=seed)


def _warming(update: int) -> float:
    return min(1.0, (update + 1) / _WARM)


@torch.no_grad()
def held_out_loss(task: Task, states: Iterable[dict[str, Tensor]]) -> float:
    """Return the loss a character on the beginning of the test set.

    Args:
        task: whose model is changed.
        states: parts of the parameters, together all; what several have is meant as the mean over groups.
    """
    several: dict[str, list[Tensor]] = {}
    for state in states:
        for name, value in state.items():
            several.setdefault(name, []).append(value)
    task.model.load_state_dict({name: torch.stack(values).mean(0) for name, values in several.items()})
    assert task.test is not None
    slices = Slices(task.test, BATCH)
    losses: list[Any] = [task.loss(task.model(*slices[i][0]), slices[i][1]) for i in range(TESTED // BATCH)]
    return float(torch.stack(losses).mean())
