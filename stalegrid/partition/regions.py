"""Single operations of a part of a forward that switches gradients or autocast, each under the same switch.

Does not know: how such a part is found, what an operation computes.

A part as a whole could not be cut, and its values would be known by their place in a tuple.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Gradients:
    """Whether operations leave a graph.

    Args:
        enabled: whether.
    """

    enabled: bool

    def __call__(self) -> AbstractContextManager[None]:
        """Open the region."""
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

    def __call__(self) -> AbstractContextManager[None]:
        """Open the region."""
        # Without its cache, which would keep a parameter that was cast from one operation to the next.
        return torch.autocast(self.device, self.dtype, self.enabled, cache_enabled=False)


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
        with self.region():
            return self.operation(*args, **kwargs)


def innermost(target: Any) -> Any:
    """Return an operation without its regions."""
    while isinstance(target, Within):
        target = target.operation
    return target


def _name(operation: Any) -> str:
    return str(getattr(operation, "__name__", "operation")).replace(".", "_")
