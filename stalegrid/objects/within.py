"""Where objects keep what they remember: attributes, slots, defaults, generators.

Does not know: how it is saved, whose objects they are.
"""

from types import FunctionType
from typing import Any

import numpy as np
from torch.optim import Optimizer

PARAMETER = "parameter"
"""The first half of a pair that stands for something given, whose number is the second."""


def attributes(value: Any) -> dict[str, Any]:
    """Return what an object keeps, by its names."""
    found = {name: getattr(value, name) for name in slots(type(value)) if hasattr(value, name)}
    if isinstance(value, Optimizer):
        found["param_groups"] = value.param_groups  # first, since what else it keeps has parameters for keys
    return {**found, **getattr(value, "__dict__", {})}


def slots(kind: type) -> list[str]:
    """Return the names of what objects of a class keep beside their ``__dict__``."""
    found = [vars(one).get("__slots__", ()) for one in kind.__mro__]
    return [name for names in found for name in ([names] if isinstance(names, str) else names) if name[:2] != "__"]


def defaults_of(function: FunctionType) -> list[tuple[str, Any]]:
    """Return the defaults of a function with their names, those of its keywords last."""
    positional = [(f"default {i}", part) for i, part in enumerate(function.__defaults__ or ())]
    return positional + list((function.__kwdefaults__ or {}).items())


def bits_of(drawer: Any) -> Any:
    """Return where a generator of NumPy has its state."""
    return drawer.bit_generator if isinstance(drawer, np.random.Generator) else drawer._bit_generator
