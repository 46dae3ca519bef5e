"""The momentum buffers of an optimizer as one vector, for those who mix them too.

Does not know: groups, matrices, when anything is mixed.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stalegrid.errors import ConfigError

BUFFERS = ("momentum_buffer", "exp_avg")
"""What torch's optimizers call their first moment."""


class Momentum:
    """First moments of one optimizer; 0 where it has made no step yet.

    Args:
        optimizer: SGD with momentum, or one of the Adam family.
        parameters: whose buffers, in the order of the vector.

    Raises:
        ConfigError: the optimizer keeps no momentum.
    """

    def __init__(self, optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
        if not (optimizer.defaults.get("momentum") or "betas" in optimizer.defaults):
            raise ConfigError(
                f"there is no momentum to mix (optimizer: {type(optimizer).__name__} without momentum); "
                "set one or leave mix_momentum off"
            )
        self._optimizer = optimizer
        self._parameters = parameters

    def read(self) -> Tensor:
        """Return a copy of all buffers, shape (parameters,)."""
        return torch.cat([self._buffer(p).flatten() for p in self._parameters])

    def add(self, delta: Tensor) -> None:
        """Add a vector to the buffers."""
        sizes = [p.numel() for p in self._parameters]
        for p, part in zip(self._parameters, torch.split(delta, sizes), strict=True):
            self._buffer(p).add_(part.view(p.shape))

    def _buffer(self, parameter: nn.Parameter) -> Tensor:
        state = self._optimizer.state.get(parameter, {})
        found = next((state[name] for name in BUFFERS if state.get(name) is not None), None)
        return torch.zeros_like(parameter, requires_grad=False) if found is None else found
