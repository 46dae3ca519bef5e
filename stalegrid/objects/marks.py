"""What shows that something was changed, of things that are not saved.

Does not know: whose they are, how others are saved.
"""

import itertools
import pickle
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType, MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stalegrid.objects.libraries import has_attributes_of_a_user
from stalegrid.objects.within import attributes

SINGLE = (type(None), bool, int, float, str)
"""Classes of values that nothing can be changed in."""

_MANY = (0, 10, 100, 1000)
"""Parts that are looked at, by the depth that is left."""
_LARGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Parts:
    """What shows a change of something that has parts.

    Args:
        kind: its class.
        size: how many there are, of which not all may be marked.
        each: marks of the parts, by what they are called, or in their order, or in none.
    """

    kind: type
    size: int
    each: dict[Any, Any] | list[Any] | frozenset[Any]


def mark(value: Any, depth: int = 3) -> Any:
    """Return what shows that something was changed, without a look at all that is in it."""
    if type(value) in SINGLE and value == value:
        return value
    if isinstance(value, Tensor):
        return (id(value), value._version)
    if isinstance(value, torch.Generator):
        return bytes(value.get_state().numpy())
    if isinstance(value, np.random.Generator | np.random.RandomState | random.Random):
        return pickled(value)
    if isinstance(value, float | np.generic | itertools.count):  # no number is equal to itself that is none
        return repr(value)
    if isinstance(value, np.ndarray):
        return (id(value), value.tobytes() if value.nbytes < _LARGE else None)
    if depth and isinstance(value, Mapping):
        pairs = itertools.islice(value.items(), _MANY[depth])
        return Parts(type(value), len(value), {mark(key, 0): mark(part, depth - 1) for key, part in pairs})
    if depth and isinstance(value, set | frozenset | list | tuple | deque):
        some = itertools.islice(value, _MANY[depth])
        if isinstance(value, set | frozenset):
            return Parts(type(value), len(value), frozenset(mark(part, 0) for part in some))
        return Parts(type(value), len(value), [mark(part, depth - 1) for part in some])
    if depth and has_attributes_of_a_user(value) and not isinstance(value, type | FunctionType | nn.Module):
        own = {name: mark(part, depth - 1) for name, part in attributes(value).items()}
        return Parts(type(value), len(own), own)
    return id(value)


def is_list(found: Any) -> bool:
    """Return whether a mark is of a list, or of another row of things."""
    return isinstance(found, Parts) and isinstance(found.each, list)


def replaced(before: Any, after: Any) -> bool:
    """Return whether two marks show that what was there is another now, and not only that something was added.

    Args:
        before: the former mark; None for what was not there, or None.
        after: the later one.
    """
    if before is None:
        return False
    if not (isinstance(before, Parts) and isinstance(after, Parts) and before.kind is after.kind):
        return bool(before != after)
    old, new = before.each, after.each
    if isinstance(old, frozenset) and isinstance(new, frozenset):
        return not old <= new
    if isinstance(old, dict) and isinstance(new, dict):
        return any(name not in new or replaced(part, new[name]) for name, part in old.items())
    return len(new) < len(old) or any(map(replaced, old, new))


def pickled(value: Any) -> Any:
    """Return what shows a change of an object that nobody can look into."""
    if isinstance(value, MappingProxyType):
        return len(value)
    try:
        return pickle.dumps(value)
    except Exception:  # anything can be raised
        # What moves whenever it is looked at is never the same; of others, such as a lock, nobody can say more.
        return object() if hasattr(value, "__next__") or hasattr(value, "read") else id(value)
