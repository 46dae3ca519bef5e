"""Single operations of a part of a forward that switches gradients or autocast, each under the same switch.

Does not know: how such a part is found, what an operation computes.

A part as a whole could not be cut, and its values would be known by their place in a tuple.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from stalegrid.objects import tensors_in

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Gradients:
    """Whether operations leave a graph.

    Args:
        enabled: whether.
    """

    enabled: bool

    def __call__(self, given: Any) -> AbstractContextManager[None]:
        """Open the region for an operation of what it is given."""
        return torch.set_grad_enabled(self.enabled)


@dataclass(frozen=True)
class Autocast:
    """In what type operations compute.

    Args:
        device: type of the devices that this is said for.
        dtype: of floating numbers.
        enabled: whether, or each in the type of what it is given.
    """

    device: str
    dtype: torch.dtype | None
    enabled: bool

    def __call__(self, given: Any) -> AbstractContextManager[None]:
        """Open the region for an operation of what it is given."""
        # Without its cache, which would keep a parameter that was cast from one operation to the next.
        return torch.autocast(self._where(given), self.dtype, self.enabled, cache_enabled=False)

    def _where(self, given: Any) -> str:
        """Return the type of device that is meant.

        A forward is captured on the CPU, and where it asks its input for the type of its device, that is what it heard.
        """
        kinds = [x.device.type for x in tensors_in(given)] if self.device == CPU.type else []
        return next(filter(torch.amp.is_autocast_available, kinds), self.device)


class Within:
    """An operation in a region.

    Args:
        region: opens it.
        operation: that is called in it.
    """

    def __init__(self, region: Gradients | Autocast, operation: Callable[..., Any]) -> None:
        self.region = region
        self.operation = operation
        # By which code that is generated from a graph calls it.
        self.__name__ = self.__qualname__ = f"{type(region).__name__.lower()}_{_name(operation)}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the operation makes."""
        with self.region((args, kwargs)):
            return self.operation(*args, **kwargs)


def innermost(target: Any) -> Any:
    """Return an operation without its regions."""
    while isinstance(target, Within):
        target = target.operation
    return target


def _name(operation: Any) -> str:
    return str(getattr(operation, "__name__", "operation")).replace(".", "_")
