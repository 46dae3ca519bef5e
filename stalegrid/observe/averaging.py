"""A callback that keeps an average of the models that were evaluated.

Does not know: agents, engines, how the mean over groups is taken.
"""

from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import tensors_of
from stalegrid.observe.callbacks import Callback
from stalegrid.observe.records import Record
from stalegrid.observe.state import saved
from stalegrid.written import replace

AVERAGE = "model-ema.safetensors"


class WeightAverage(Callback):
    """Keeps an exponential moving average of the mean model, ``a <- decay a + (1 - decay) w`` at every evaluation.

    It begins with the first evaluation, and is in ``model-ema.safetensors`` in the folder of the run from then on.
    Floating buffers are averaged like parameters; others are those of the last evaluation.

    Args:
        decay: share of the average so far, at least 0, below 1.

    Raises:
        ConfigError: the decay is none.
    """

    stops: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"the decay of an average is at least 0 and below 1 (decay: {decay})")
        self._decay = decay
        self._mean: dict[str, Tensor] = {}

    def on_start(self, folder: Path) -> None:
        """Note where to write."""
        self._path = folder / AVERAGE

    @torch.no_grad()
    def on_evaluation(self, record: Record, model: nn.Module) -> None:
        """Take in a model."""
        # The model is a copy of its own, as callbacks get.
        for name, tensor in tensors_of(model).items():
            if tensor.is_floating_point() and name in self._mean:
                before = self._mean[name]
                mixed = torch.lerp(before, tensor, 1 - self._decay)
                # What stayed as it was does so to the bit, and an infinity stays one.
                tensor.copy_(torch.where(before == tensor, tensor, mixed))
            self._mean[name] = tensor.detach()
        state = saved(model)
        replace(self._path, lambda part: save_file(state, part))
