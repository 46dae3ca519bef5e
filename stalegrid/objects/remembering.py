"""Turns objects into a tree of what they remember, each once.

Does not know: how others are given it, files.
"""

import itertools
import random
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.objects import spectral
from stalegrid.objects.common import Common
from stalegrid.objects.libraries import is_python, root
from stalegrid.objects.marks import SINGLE, pickled
from stalegrid.objects.reaching import EMPTY, held_in
from stalegrid.objects.within import PARAMETER, attributes, bits_of, defaults_of, slots

_SEQUENCES = (list, tuple, set, frozenset, deque, torch.Size)
_MAPS = (dict, Counter, OrderedDict, defaultdict)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_OWN = (nn.Module, Optimizer, LRScheduler)
"""Classes of torch whose objects are looked into; others of torch keep nothing of a user's."""
_PARTIAL = ("func", "args", "keywords")


class Remembering:
    """Turns objects into a tree, each once.

    Attributes:
        fixed: by its place, what shows a change of something that cannot be saved.
        kinds: by its place, the class of an object that must be there for a state to be given to.
    """

    def __init__(self, given: Sequence[object], thing: Any) -> None:
        self._given = {id(one): number for number, one in enumerate(given)}
        self._tensors = [(number, one) for number, one in enumerate(given) if isinstance(one, Tensor)]
        self._roots = {id(one) for one in _roots(thing)}
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []  # so that no number is another object's
        self._common = Common()
        self.fixed: dict[str, Any] = {}
        self.kinds: dict[str, type] = {}

    @property
    def common(self) -> dict[str, Any]:
        """By its name, what shows a change of what classes and globals hold that its code knows."""
        return self._common.found

    def look(self, code: Any) -> None:
        """Note what a class or a function knows."""
        self._common.look(code)

    def value(self, value: Any, path: str) -> Any:
        """Return what an object remembers, as a tree of plain values and tensors.

        Args:
            value: the object.
            path: where it is, for those who read of it.
        """
        if type(value) in SINGLE:
            return value
        if id(value) in self._given:
            return (PARAMETER, self._given[id(value)])
        if type(value) is Tensor and not (value.requires_grad and value.is_leaf):
            return self._tensor(value, path)
        if type(value) is complex:
            return ("complex", value.real, value.imag)
        if isinstance(value, np.generic) and value.dtype.kind in "biuf":
            return ("number", value.dtype.str, value.item())
        if isinstance(value, type | ModuleType | BuiltinFunctionType | torch.dtype | torch.device | weakref.ref):
            self._common.look(value)
            return ("same",)
        if id(value) in self._seen:
            return ("again", self._seen[id(value)])
        number = self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        return (*self._once(value, path), number)

    def _once(self, value: Any, path: str) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return ("tuple", [self.value(part, f"{path}[{i}]") for i, part in enumerate(value)])
        if type(value) in _SEQUENCES:
            parts = [self.value(part, f"{path}[{i}]") for i, part in enumerate(value)]
            return ("deque", parts, value.maxlen) if type(value) is deque else (type(value).__name__, parts)
        if type(value) in _MAPS:
            if type(value) is defaultdict:
                self.kinds[path] = defaultdict
            pairs = [[self._key(key, path), self.value(part, f"{path}[{key!r:.40}]")] for key, part in value.items()]
            return (type(value).__name__, pairs)
        if isinstance(value, Tensor):
            self.kinds[path] = type(value)
            return ("leaf", value.detach())
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            return ("array", torch.from_numpy(value.copy()))
        if isinstance(value, _GENERATORS):
            return self._generator(value, path)
        if type(value) is itertools.count:
            return ("count", *value.__reduce__()[1])
        if isinstance(value, FunctionType | partial | MethodType):
            return self._function(value, path)
        return self._object(value, path)

    def _key(self, key: Any, path: str) -> Any:
        # By the number of a parameter, as people do.
        return ("id", self._given[key]) if type(key) is int and key in self._given else self.value(key, f"{path} key")

    def _tensor(self, tensor: Tensor, path: str) -> Any:
        if tensor.layout != torch.strided or tensor.grad_fn is not None:
            self.fixed[path] = (id(tensor), tensor._version)
            return ("same",)
        for number, one in self._tensors if tensor.numel() else ():
            if one.layout == torch.strided and one.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
                offset = tensor.storage_offset() - one.storage_offset()
                if tensor.dtype == one.dtype and offset >= 0:
                    return ("view", number, offset, list(tensor.shape), list(tensor.stride()))
        return tensor

    def _generator(self, value: Any, path: str) -> tuple[Any, ...]:
        self.kinds[path] = type(value)
        if isinstance(value, torch.Generator):
            return ("generator", value.get_state())
        state = value.getstate() if isinstance(value, random.Random) else bits_of(value).state
        return ("drawer", _plain(state))

    def _function(self, value: Any, path: str) -> tuple[Any, ...]:
        if isinstance(value, partial):
            self.kinds[path] = partial
            parts = (value.func, value.args, value.keywords)
            return ("partial", [self.value(part, f"{path}.{n}") for n, part in zip(_PARTIAL, parts, strict=True)])
        if isinstance(value, MethodType):
            self._common.look(value.__func__)
            return ("method", self.value(value.__self__, f"{path}.__self__"))
        self._common.look(value)
        if root(value) in ("torch", "numpy"):
            return ("same",)
        self.kinds[path] = FunctionType
        closure = value.__closure__ or ()
        cells = [
            self._cell(held_in(c), f"{path}.{n}") for n, c in zip(value.__code__.co_freevars, closure, strict=True)
        ]
        defaults = [self.value(part, f"{path}.{n}") for n, part in defaults_of(value)]
        own = vars(value)
        if not (closure or value.__defaults__ or value.__kwdefaults__):
            self._common.of_function(value)  # it is one for all, as functions without a state are
            own = {}
        return ("function", cells, defaults, [[n, self.value(part, f"{path}.{n}")] for n, part in own.items()])

    def _cell(self, content: Any, path: str) -> Any:
        return ("empty",) if content is EMPTY else self.value(content, path)

    def _object(self, value: Any, path: str) -> tuple[Any, ...]:
        kind = type(value)
        if _says(value):
            self.kinds[path] = kind
            return ("said", self.value(value.state_dict(), f"{path}.state_dict()"))
        ours = root(kind) == "stalegrid" and not kind.__module__.startswith("stalegrid.observe")
        if (ours and id(value) not in self._roots) or (root(kind) == "torch" and not isinstance(value, _OWN)):
            return ("same",)  # which is saved by itself, or without a state
        if isinstance(value, Enum) or is_python(kind) or not (hasattr(value, "__dict__") or slots(kind)):
            self.fixed[path] = pickled(value)
            return ("same",)
        self.kinds[path] = kind
        self._common.look(kind)
        # Such as a weight of which a forward makes another one.
        computed = spectral.computed(value) if isinstance(value, nn.Module) else ()
        named = [
            [n, ("same",) if n in computed else self.value(part, f"{path}.{n}" if path else n)]
            for n, part in attributes(value).items()
        ]
        return ("object", named)


def _roots(thing: Any) -> Iterator[Any]:
    if isinstance(thing, dict | list | tuple):
        for part in thing.values() if isinstance(thing, dict) else thing:
            yield from _roots(part)
    else:
        yield thing


def _plain(state: Any) -> Any:
    """Return the state of a generator without arrays."""
    if isinstance(state, dict):
        return {name: _plain(part) for name, part in state.items()}
    if isinstance(state, tuple):
        return tuple(map(_plain, state))
    return {"array": state.tolist(), "type": state.dtype.str} if isinstance(state, np.ndarray) else state


def _says(value: Any) -> bool:
    """Return whether an object's own class, and not one of torch, says what it remembers."""
    if not callable(getattr(value, "load_state_dict", None)):
        return False
    where = next((kind for kind in type(value).__mro__ if "state_dict" in vars(kind)), type(value))
    return root(where) != "torch"
