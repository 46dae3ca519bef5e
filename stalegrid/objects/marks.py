"""What shows that something was changed, of things that are not saved.

Does not know: whose they are, how others are saved.
"""

import itertools
import pickle
from collections import deque
from collections.abc import Mapping
from types import FunctionType, MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SINGLE = (type(None), bool, int, float, str)
"""Classes of values that nothing can be changed in."""

_MANY, _LARGE = 1000, 1 << 20


def mark(value: Any, depth: int = 3) -> Any:
    """Return what shows that something was changed, without a look at all that is in it."""
    if type(value) in SINGLE:
        return value
    if isinstance(value, Tensor):
        return (id(value), value._version)
    if isinstance(value, torch.Generator):
        return bytes(value.get_state().numpy())
    if isinstance(value, np.ndarray):
        return (id(value), value.tobytes() if value.nbytes < _LARGE else None)
    if depth and isinstance(value, Mapping):
        some = itertools.islice(value.items(), _MANY)
        return (type(value), len(value), [(mark(k, 0), mark(part, depth - 1)) for k, part in some])
    if depth and isinstance(value, list | tuple | set | frozenset | deque):
        return (type(value), len(value), [mark(part, depth - 1) for part in itertools.islice(value, _MANY)])
    if depth and hasattr(value, "__dict__") and not isinstance(value, type | FunctionType | nn.Module):
        return (type(value), [(name, mark(part, depth - 1)) for name, part in vars(value).items()])
    return id(value)


def pickled(value: Any) -> Any:
    """Return what shows a change of an object that nobody can look into."""
    if isinstance(value, MappingProxyType):
        return len(value)
    try:
        return pickle.dumps(value)
    except Exception:  # anything can be raised
        # What moves whenever it is looked at is never the same; of others, such as a lock, nobody can say more.
        return object() if hasattr(value, "__next__") or hasattr(value, "read") else id(value)
