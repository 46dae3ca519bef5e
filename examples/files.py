"""A data set of one's own, read from files by workers: a DataLoader in the place of the data set.

python examples/files.py [--updates N]

The example writes the handwritten digits of scikit-learn into a folder, a file a picture, and reads them from there.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import stalegrid


class Pictures(Dataset[tuple[Tensor, int]]):
    """Files FOLDER/CLASS/NUMBER.npy, shifted a little in training."""

    def __init__(self, folder: Path, shift: bool) -> None:
        self.files = sorted(folder.glob("*/*.npy"))
        self.shift = shift

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = torch.from_numpy(np.load(self.files[index])).float().unsqueeze(0) / 16
        if self.shift:  # drawn from torch's generator, which is keyed by epoch and sample
            picture = picture.roll(int(torch.randint(-1, 2, ())), dims=2)
        return picture, int(self.files[index].parent.name)


def written(folder: Path) -> tuple[Path, Path]:
    """Write the digits, and return the folders of training and test."""
    bundle = load_digits()
    for number, (image, label) in enumerate(zip(bundle.images, bundle.target, strict=True)):
        target = folder / ("train" if number < 1437 else "test") / str(label)
        target.mkdir(parents=True, exist_ok=True)
        np.save(target / f"{number:04}.npy", image.astype(np.float32))
    return folder / "train", folder / "test"


def main() -> None:
    """Write, train and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=400)
    asked = parser.parse_args()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 64, 10),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        train, test = written(Path(name))
        data = Pictures(train, shift=True)
        loader: DataLoader[Any] = DataLoader(data, batch_size=32, shuffle=True, drop_last=True, num_workers=2)
        result = stalegrid.train(
            model,
            loader,
            test=Pictures(test, shift=False),
            loss=nn.CrossEntropyLoss(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
            groups=2,
            stages=2,
            updates=asked.updates,
        )
    print(f"test accuracy {result.test_accuracy:.1%}")


if __name__ == "__main__":
    main()
