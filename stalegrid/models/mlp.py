"""A multilayer perceptron with batch normalisation and dropout."""

from torch import nn


def mlp(inputs: int, classes: int, hidden: tuple[int, ...] = (128, 128, 64), dropout: float = 0.1) -> nn.Sequential:
    """Build linear layers, each followed by batch normalisation, ReLU and dropout.

    Args:
        inputs: values per sample; samples of any shape are flattened.
        classes: outputs.
        hidden: width of each hidden layer.
        dropout: probability that a hidden value is dropped.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
