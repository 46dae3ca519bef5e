"""Low-rank adapters (Hu et al., arXiv 2106.09685) on a frozen model: stages below the first adapter only forward.

python examples/lora.py [--updates N]

A network that was trained on the digits 0 to 4 learns the digits 5 to 9: its own weights stay, adapters of rank 4 in
its upper layers and a new head learn.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import stalegrid


class Adapted(nn.Module):
    """A frozen layer, and beside it a product of two small matrices that starts at zero."""

    def __init__(self, layer: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.a.t() @ self.b.t()


def digits(wanted: range) -> tuple[TensorDataset, TensorDataset]:
    """Return training and test pictures of some digits, labelled from 0."""
    bundle = load_digits()
    x, y = torch.tensor(bundle.data, dtype=torch.float32) / 16, torch.tensor(bundle.target)
    sets = []
    for part in (slice(0, 1437), slice(1437, None)):
        mine = (y[part] >= wanted.start) & (y[part] < wanted.stop)
        sets.append(TensorDataset(x[part][mine], y[part][mine] - wanted.start))
    return sets[0], sets[1]


def pretrained() -> nn.Sequential:
    """Return a network that knows the digits 0 to 4."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 5)
    )
    x, y = digits(range(5))[0].tensors
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def main() -> None:
    """Adapt, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=300)
    asked = parser.parse_args()
    old = pretrained()
    frozen = nn.Sequential(old[0], old[1]).requires_grad_(False)
    model = nn.Sequential(*frozen, Adapted(old[2]), nn.ReLU(), Adapted(old[4]), nn.ReLU(), nn.Linear(128, 5))
    data, test = digits(range(5, 10))
    result = stalegrid.train(
        model,
        data,
        test=test,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        method="pipedream",
        stages=3,
        cuts=["2", "4"],
        batch_size=32,
        updates=asked.updates,
    )
    every = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"test accuracy {result.test_accuracy:.1%}, {trained} of {every} parameters trained")


if __name__ == "__main__":
    main()
