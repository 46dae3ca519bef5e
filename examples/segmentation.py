"""A U-Net whose skips cross every stage finds which pixels of a noisy picture are ink.

python examples/segmentation.py [--updates N]

Pictures are the handwritten digits of scikit-learn, twice as large and under noise; the target is the digit without it.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

import stalegrid


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Digits under noise that is drawn anew in every epoch; the draws are keyed, so every run sees the same."""

    def __init__(self, start: int, stop: int) -> None:
        images = torch.tensor(load_digits().images[start:stop], dtype=torch.float32).unsqueeze(1) / 16
        self.images = F.interpolate(images, scale_factor=2, mode="bilinear")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        return image + 0.5 * torch.randn(image.shape), (image > 0.4).float()


class Level(nn.Module):
    """Two convolutions."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class UNet(nn.Module):
    """Down three levels and up again, each level up beside what the one down has seen."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down1, self.down2 = Level(1, width), Level(width, 2 * width)
        self.bottom = Level(2 * width, 4 * width)
        self.rise2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up2 = Level(4 * width, 2 * width)
        self.rise1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up1 = Level(2 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        low = self.bottom(F.max_pool2d(two, 2))
        two = self.up2(torch.cat([self.rise2(low), two], dim=1))
        one = self.up1(torch.cat([self.rise1(two), one], dim=1))
        return self.head(one)


@torch.no_grad()
def overlap(model: nn.Module, data: Noisy) -> float:
    """Return the intersection over the union of what is found and what is there."""
    pairs = [data[i] for i in range(len(data))]
    found = model(torch.stack([x for x, _ in pairs])) > 0
    there = torch.stack([y for _, y in pairs]) > 0
    return float((found & there).sum() / (found | there).sum())


def main() -> None:
    """Train, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=400)
    asked = parser.parse_args()
    torch.manual_seed(0)
    data, test = Noisy(0, 1437), Noisy(1437, 1797)
    result = stalegrid.train(
        UNet(),
        data,
        test=test,
        loss=nn.BCEWithLogitsLoss(),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=2e-3),
        method="pham-ahn",
        stages=3,
        groups=1,
        batch_size=16,
        updates=asked.updates,
    )
    print(f"overlap with the ink {overlap(result.model, test):.3f}, cuts {', '.join(result.summary['cuts'])}")


if __name__ == "__main__":
    main()
