"""Ordinary models for the command line, examples and benchmarks.

Does not know: stages, engines.
"""

from collections.abc import Callable

from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.models.convnet import convnet
from stalegrid.models.gpt import GPT
from stalegrid.models.mlp import mlp
from stalegrid.models.resnet import resnet

__all__ = ["GPT", "MODELS", "build", "convnet", "mlp", "resnet"]

MODELS = ("mlp", "convnet", "gpt", "resnet20", "resnet32", "resnet56", "resnet110")


def build(name: str, sample: Tensor, classes: int) -> nn.Module:
    """Build a model by name for samples of one shape.

    Args:
        name: one of ``MODELS``.
        sample: one input, shape (C, H, W) for images, (T,) for text.
        classes: outputs.

    Raises:
        ConfigError: the name is unknown, or the model does not fit the samples.
    """
    if name not in MODELS:
        raise ConfigError(f"unknown model (model: {name!r}); there are: {', '.join(MODELS)}")
    if name == "gpt":
        if sample.ndim != 1 or sample.is_floating_point():
            raise ConfigError(f"gpt needs text, whole numbers in a row (sample shape: {tuple(sample.shape)}); try mlp")
        return GPT(classes, len(sample))
    if name == "mlp":
        return mlp(sample.numel(), classes)
    if sample.ndim != 3 or sample.shape[1] != sample.shape[2] or sample.shape[1] < 8:
        raise ConfigError(f"{name} needs square images of 8 x 8 or more (sample shape: {tuple(sample.shape)}); try mlp")
    images: Callable[[], nn.Module] = (
        (lambda: convnet(sample.shape[0], classes, sample.shape[-1]))
        if name == "convnet"
        else (lambda: resnet(int(name.removeprefix("resnet")), sample.shape[0], classes))
    )
    return images()
