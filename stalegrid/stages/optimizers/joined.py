"""Several optimizers that act as one.

Does not know: how parameters were parted between them.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, overload

import torch
from torch.optim import Optimizer

from stalegrid.errors import ConfigError


class Joined(Optimizer):
    """Optimizers with parameters of their own as one, whose groups and state are theirs, and not copies.

    So a schedule, a correction or a mixing changes rates and reads states without knowing that there are several.

    Args:
        parts: in the order of their groups; one may have groups without parameters, and then makes no step.
        idle: what was to choose parameters, as the user wrote it, and chose none.

    Raises:
        ValueError: two have the same parameter.
    """

    def __init__(self, parts: Sequence[Optimizer], idle: Sequence[str] = ()) -> None:
        self.parts = tuple(own for part in parts for own in parts_of(part))
        self.idle = tuple(idle)
        # What all have is what the whole can be said to have: a schedule asks whether there is a momentum to change.
        shared = {k: v for k, v in self.parts[0].defaults.items() if all(k in part.defaults for part in self.parts)}
        super().__init__([group for part in self.parts for group in part.param_groups], shared)
        for part in self.parts:
            self.state.update(part.state)
        self._share()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Step each that has parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            if any(group["params"] for group in part.param_groups):
                part.step()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take a group of one of the parts; there is nobody to step others."""
        if not any(param_group is own for part in self.parts for own in part.param_groups):
            raise ConfigError("several optimizers that are joined take no further parameters; give them to the factory")
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned, into each part."""
        super().load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts, "idle": self.idle}  # torch's knows its own alone

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.state = self.state
            part.param_groups = list(islice(groups, len(part.param_groups)))


def parts_of(optimizer: Optimizer) -> tuple[Optimizer, ...]:
    """Return the optimizers that one is made of: itself, or those that are joined."""
    return optimizer.parts if isinstance(optimizer, Joined) else (optimizer,)


def kinds_of(optimizer: Optimizer) -> str:
    """Return the names of the classes that an optimizer is made of, for messages."""
    return " and ".join(dict.fromkeys(type(part).__name__ for part in parts_of(optimizer)))
