"""A method of one's own, held against the published ones on the same samples.

python examples/own_method.py [--updates N]

It forwards at the newest weights, looks back at the newest weights, and trusts a gradient the less the staler it is.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

import stalegrid


class Trust(stalegrid.Correction):
    """Scales a gradient by 1 / (1 + c x staleness)."""

    def __init__(self, site: stalegrid.Site, c: float = 0.1) -> None:
        super().__init__(site)
        self.c = c

    def correct(self, update: stalegrid.Update) -> None:
        for p in self.site.weights.trainable():
            if p.grad is not None:
                p.grad /= 1 + self.c * update.staleness


def main() -> None:
    """Train four ways, and print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=600)
    asked = parser.parse_args()
    bundle = load_digits()
    x, y = torch.tensor(bundle.data, dtype=torch.float32) / 16, torch.tensor(bundle.target)
    data, test = TensorDataset(x[:1437], y[:1437]), TensorDataset(x[1437:], y[1437:])
    torch.manual_seed(0)
    hidden = (layer for _ in range(4) for layer in (nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU()))
    model = nn.Sequential(*hidden, nn.Linear(64, 10))
    ways = {
        "1f1b (no staleness)": {"method": "1f1b"},
        "pipemare": {"method": "pipemare"},
        "current": {"method": "pipedream", "view": "current"},
        "trust": {"method": "pipedream", "view": "current", "corrections": [Trust]},
    }
    for name, options in ways.items():
        result = stalegrid.train(
            model,
            data,
            test=test,
            loss=nn.CrossEntropyLoss(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            stages=4,
            cuts=["3", "6", "9"],
            batch_size=32,
            updates=asked.updates,
            engine="simulator",
            quiet=True,
            **options,
        )
        print(f"{name}: test accuracy {result.test_accuracy:.1%}")


if __name__ == "__main__":
    main()
