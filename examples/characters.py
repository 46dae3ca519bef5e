"""Characters with a GPT, its embedding tied with its head, on a pipeline of four stages that never waits.

python examples/characters.py [--folder DIR] [--updates N]

DIR holds one text file; without it the text is the source of torch.nn.functional, which is on every machine.
"""

import argparse
import inspect
import tempfile
from pathlib import Path

import torch
from torch import nn

import stalegrid
from stalegrid.data import load
from stalegrid.models import GPT


def no_decay_for_vectors(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return NAdam with the long momentum that the method asks for; matrices decay, biases and norms do not."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.NAdam(groups, lr=2e-3, betas=(0.99, 0.99), decoupled_weight_decay=True)


def warm_up_then_cosine(optimizer: torch.optim.Optimizer, updates: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Let the rate rise for a tenth of the run, and fall for the rest."""
    rise = max(1, updates // 10)
    return torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=rise),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, updates - rise), eta_min=1e-4),
        ],
        milestones=[rise],
    )


@torch.no_grad()
def continued(model: nn.Module, characters: str, text: str, length: int, context: int) -> str:
    """Let a model write on: characters are drawn, likely ones more often than the model has them."""
    codes = [characters.index(c) for c in text]
    for _ in range(length):
        scores = model(torch.tensor([codes[-context:]]))
        codes.append(int(torch.multinomial((scores[0, :, -1] / 0.7).softmax(0), 1)))
    return "".join(characters[code] for code in codes)


def main() -> None:
    """Train, and let the model write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--updates", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if asked.folder is None:
            Path(name, "functional.txt").write_text(inspect.getsource(torch.nn.functional), encoding="utf-8")
        data, test = load("text", asked.folder or Path(name), context=64)
    torch.manual_seed(0)
    model = GPT(data.classes, 64, layers=4, heads=4, width=64, dropout=0.0)
    result = stalegrid.train(
        model,
        data,
        test=test,
        loss=nn.CrossEntropyLoss(),
        optimizer=no_decay_for_vectors,
        scheduler=lambda optimizer: warm_up_then_cosine(optimizer, asked.updates),
        method="async-nesterov",
        stages=4,
        batch_size=32,
        updates=asked.updates,
    )
    print(f"test loss {result.summary['test_loss']:.3f} a character, cuts {', '.join(result.summary['cuts'])}")
    print(continued(result.model, data.characters, "the ", 200, 64))


if __name__ == "__main__":
    main()
