"""The momentum buffers of an optimizer as one vector, for those who mix them too.

Does not know: groups, matrices, when anything is mixed.
"""

import copy
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stalegrid.errors import ConfigError
from stalegrid.stages import parts_of

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
        for part in parts_of(optimizer):
            if not (part.defaults.get("momentum") or "betas" in part.defaults):
                raise ConfigError(
                    f"there is no momentum to mix (optimizer: {type(part).__name__} without momentum); "
                    "set one or leave mix_momentum off"
                )
        self._optimizer = optimizer
        self._parameters = parameters

    def read(self) -> Tensor:
        """Return a copy of all buffers, shape (parameters,)."""
        return torch.cat([self._buffer(p).flatten() for p in self._parameters])

    def add(self, delta: Tensor) -> None:
        """Add a vector to the buffers; where there is none yet, it is a 0 to which is added."""
        sizes = [p.numel() for p in self._parameters]
        for p, part in zip(self._parameters, torch.split(delta, sizes), strict=True):
            # What has no momentum anywhere is left without a state: SGD takes the first gradient whole, without
            # dampening.
            if part.any():
                self._made(p).add_(part.view(p.shape))

    def _buffer(self, parameter: nn.Parameter) -> Tensor:
        found = self._found(parameter)
        return torch.zeros_like(parameter, requires_grad=False) if found is None else found

    def _made(self, parameter: nn.Parameter) -> Tensor:
        if self._found(parameter) is None:
            self._optimizer.state[parameter] = _blank(self._optimizer, parameter)
        found = self._found(parameter)
        assert found is not None
        return found

    def _found(self, parameter: nn.Parameter) -> Tensor | None:
        state = self._optimizer.state.get(parameter, {})
        return next((state[name] for name in BUFFERS if state.get(name) is not None), None)


def _blank(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    """Return the state of a parameter that has had no gradient: what a step by 0 makes, set back to the start."""
    own, group = next(
        (own, g) for own in parts_of(optimizer) for g in own.param_groups if any(p is parameter for p in g["params"])
    )
    stand_in = nn.Parameter(torch.zeros_like(parameter))
    stand_in.grad = torch.zeros_like(parameter)
    # A shallow copy: the same rules, with a state and parameters that are thrown away.
    other = copy.copy(own)
    other.state, other.param_groups = defaultdict(dict), [{**group, "params": [stand_in]}]
    other.step()
    state = dict(other.state[stand_in])
    for name, value in state.items():
        if isinstance(value, Tensor):
            value.fill_(1.0 if name == "mu_product" else 0.0)  # NAdam's product of momenta begins with 1
    return state
