"""Random crop and flip of image batches, each draw a pure function of (seed, epoch, sample).

Does not know: batches, groups, normalisation.

Source: the CIFAR recipe of He et al., Deep Residual Learning, section 4.2: pad the raw image with zeros by 4
pixels, crop at random, flip half of the images.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stalegrid.errors import ConfigError
from stalegrid.seeds import generator


@dataclass(frozen=True, slots=True)
class CropAndFlip:
    """Zero padding, a crop of the old size at a random place, a left-right flip of half of the images.

    Args:
        padding: pixels added on each of the four sides.
        flip: whether to flip.

    Raises:
        ConfigError: the padding is negative.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ConfigError(f"padding must not be negative ({self.padding})")

    def draw(self, seed: int, epoch: int, samples: int) -> Tensor:
        """Draw what happens to every sample of a data set in one epoch.

        Args:
            seed: the run's seed.
            epoch: passes over the data before this one.
            samples: size of the data set.

        Returns:
            int64 (samples, 3): top and left of the crop, 0 to twice the padding, and 1 for a flip, else 0.
        """
        # For the whole data set at once, so that a sample's draw does not depend on its batch or on who reads it.
        source = generator(seed, "augment", epoch)
        corners = torch.randint(2 * self.padding + 1, (samples, 2), generator=source)
        flips = torch.randint(2, (samples, 1), generator=source) * int(self.flip)
        return torch.cat([corners, flips], dim=1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Crop and flip a batch.

        Args:
            images: (B, C, H, W), raw: black must be 0.
            draws: rows of :meth:`draw`, (B, 3).

        Returns:
            A new tensor of the same shape and type.
        """
        height, width = images.shape[2:]
        top, left, flip = draws.unbind(1)
        padded = F.pad(images, [self.padding] * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # every crop of every image, as a view
        crops = windows[torch.arange(len(images)), :, top, left]
        return torch.where(flip.bool().view(-1, 1, 1, 1), crops.flip(3), crops)
