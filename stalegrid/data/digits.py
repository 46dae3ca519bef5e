"""The 8x8 digits that come with scikit-learn: real data without a download.

Does not know: training, files.

Source: the test set of the UCI Optical Recognition of Handwritten Digits data, bundled with scikit-learn.
"""

import torch

from stalegrid.data.arrays import ArrayDataset
from stalegrid.errors import ConfigError
from stalegrid.seeds import generator

CLASSES = 10
TRAIN = 1437
"""Training images; the other 360 of the 1797 are for testing."""
MEAN, STD = 0.3053, 0.3761
"""Of all pixels scaled to 0..1."""


def load_digits(train: bool) -> ArrayDataset:
    """Load the digits; the split is the same always.

    Args:
        train: the 1437 training images, else the 360 test images.

    Returns:
        Normalised float32 images (N, 1, 8, 8) with their labels.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ConfigError('the digits come with scikit-learn: pip install "stalegrid[digits]"') from error
    bundle = datasets.load_digits()
    order = torch.randperm(len(bundle.target), generator=generator(0, "digits"))
    chosen = order[:TRAIN] if train else order[TRAIN:]
    images = torch.from_numpy(bundle.images).float().unsqueeze(1)[chosen]
    targets = torch.from_numpy(bundle.target).long()[chosen]
    return ArrayDataset((images / 16 - MEAN) / STD, targets, CLASSES)
