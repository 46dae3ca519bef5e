import os
from pathlib import Path

import pytest
import torch

from stalegrid.data import ArrayDataset, Normalise


@pytest.fixture
def real_data() -> Path:
    """The folder that holds cifar-10-batches-bin and MNIST/raw."""
    folder = os.environ.get("STALEGRID_DATA")
    if not folder:
        pytest.skip("STALEGRID_DATA does not name a folder with the official files")
    if not any(Path(folder).iterdir()):
        pytest.skip(f"{folder} is empty, as make leaves it where there are no official files")
    return Path(folder)


@pytest.fixture
def pictures() -> ArrayDataset:
    """103 small colour images; no two are alike."""
    source = torch.Generator().manual_seed(7)
    images = torch.randint(256, (103, 3, 8, 6), generator=source, dtype=torch.uint8)
    labels = torch.randint(10, (103,), generator=source)
    return ArrayDataset(images, labels, 10, Normalise((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
