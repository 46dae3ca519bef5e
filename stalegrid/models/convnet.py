"""Three convolutions, each with pooling, and one linear layer: about 90,000 parameters on CIFAR-10.

The network of Zhang et al. (arXiv 1511.05950) is described by these words and that size; widths are ours.
"""

from torch import nn


def convnet(channels: int, classes: int, size: int) -> nn.Sequential:
    """Build the network for square images.

    Args:
        channels: of an image.
        classes: outputs.
        size: height and width, at least 8.
    """
    widths = (32, 32, 64)
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        channels, size = width, size // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size * size, classes))
