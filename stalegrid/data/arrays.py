"""A data set that lies in memory as two tensors, and the normalisation of its images.

Does not know: files, batches, groups, augmentation.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stalegrid.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Normalise:
    """Maps 8-bit images to zero mean and unit deviation, channel by channel: ``(x / 255 - mean) / std``.

    Args:
        mean: one number per channel, of pixels scaled to 0..1.
        std: one positive number per channel, of pixels scaled to 0..1.

    Raises:
        ConfigError: the two differ in length, or a deviation is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ConfigError(f"{len(self.mean)} means but {len(self.std)} standard deviations")
        if not all(std > 0 for std in self.std):
            raise ConfigError(f"standard deviations must be positive, not {self.std}")

    def __call__(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normalise images.

        Args:
            images: uint8, (..., C, H, W).
            dtype: floating type of the result.

        Returns:
            A new tensor of the same shape.
        """
        # At least single precision inside: in bfloat16 many of the 256 grey levels would fall together.
        # Plain operations, none fused, so that a pixel's value does not depend on where in a batch it lies.
        wide = torch.promote_types(dtype, torch.float32)
        mean = torch.tensor(self.mean, dtype=wide).view(-1, 1, 1)
        std = torch.tensor(self.std, dtype=wide).view(-1, 1, 1)
        return images.to(wide).div_(255).sub_(mean).div_(std).to(dtype)


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """Inputs and class labels in memory; an ordinary map-style data set.

    Args:
        inputs: (N, ...), of any type; uint8 images (N, C, H, W) where ``normalise`` is given.
        targets: int64 (N,), from 0 to ``classes - 1``.
        classes: number of classes.
        normalise: what to do to uint8 images when they are fetched; without it inputs come as they are.

    Raises:
        DataError: shapes or types do not fit, or a label is not one of the classes.
        ConfigError: ``normalise`` does not fit the inputs.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, classes: int, normalise: Normalise | None = None) -> None:
        if targets.dtype != torch.int64 or targets.ndim != 1:
            raise DataError(f"targets must be int64 (N,), not {targets.dtype} {tuple(targets.shape)}")
        if inputs.ndim == 0 or len(inputs) != len(targets):
            raise DataError(f"inputs {tuple(inputs.shape)} and {len(targets)} targets are not one to one")
        check_labels(targets.tolist(), classes, "targets")
        if normalise is not None:
            _check_images(inputs, normalise)
        self.inputs = inputs
        self.targets = targets
        self.classes = classes
        self.normalise = normalise

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.prepare(self.inputs[index]), self.targets[index]

    def fetch(self, indices: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Return many samples at once, bit for bit those of ``self[i]``.

        Args:
            indices: int64 (B,).
            dtype: type of floating inputs; see :meth:`prepare`.

        Returns:
            Prepared inputs (B, ...) and targets (B,).
        """
        return self.prepare(self.inputs[indices], dtype), self.targets[indices]

    def prepare(self, inputs: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Turn raw inputs, one or a batch, into what a model takes.

        Args:
            inputs: raw inputs, as in ``self.inputs``.
            dtype: type of floating inputs; None for float32 images, and other inputs as they are.

        Returns:
            Images normalised where the data set says how, other floating inputs cast, integers as they are.
        """
        if self.normalise is not None:
            return self.normalise(inputs, torch.float32 if dtype is None else dtype)
        return inputs.to(dtype) if dtype is not None and inputs.is_floating_point() else inputs


def check_labels(labels: Iterable[int], classes: int, where: str) -> None:
    """Refuse a label that is not one of the classes.

    Args:
        labels: class labels.
        classes: number of classes; labels count from 0.
        where: what holds the labels, for the message.

    Raises:
        DataError: names the first wrong label and its index.
    """
    for index, label in enumerate(labels):
        if not 0 <= label < classes:
            raise DataError(f"{where}: label {label} at index {index} is not one of 0 to {classes - 1}")


def _check_images(images: Tensor, normalise: Normalise) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ConfigError(
            f"normalise is for uint8 images (N, C, H, W), not {images.dtype} {tuple(images.shape)}; "
            "give other inputs already normalised"
        )
    if images.shape[1] != len(normalise.mean):
        raise ConfigError(f"images of {images.shape[1]} channels but {len(normalise.mean)} means")
