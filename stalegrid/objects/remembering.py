"""Turns objects into a tree of what they remember, each once.

Does not know: how others are given it, files.
"""

import dis
import itertools
import random
import sys
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.objects import spectral
from stalegrid.objects.marks import SINGLE, mark, pickled
from stalegrid.objects.reaching import EMPTY, held_in
from stalegrid.objects.within import PARAMETER, attributes, bits_of, defaults_of, slots

_SEQUENCES = (list, tuple, set, frozenset, deque, torch.Size)
_MAPS = (dict, Counter, OrderedDict, defaultdict)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_OWN = (nn.Module, Optimizer, LRScheduler)
"""Classes of torch whose objects are looked into; others of torch keep nothing of a user's."""
_LIBRARIES = ("torch", "numpy", "builtins", "functools", "collections", "abc", "typing")
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
        self._looked: set[int] = set()
        self.fixed: dict[str, Any] = {}
        self.kinds: dict[str, type] = {}

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
            self._look(value)
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
            self._look(value.__func__)
            return ("method", self.value(value.__self__, f"{path}.__self__"))
        self._look(value)
        if _of(value) in ("torch", "numpy"):
            return ("same",)
        self.kinds[path] = FunctionType
        closure = value.__closure__ or ()
        cells = [
            self._cell(held_in(c), f"{path}.{n}") for n, c in zip(value.__code__.co_freevars, closure, strict=True)
        ]
        defaults = [self.value(part, f"{path}.{n}") for n, part in defaults_of(value)]
        own = vars(value)
        if not (closure or value.__defaults__ or value.__kwdefaults__) and own:
            self.fixed[f"{path}.__dict__"] = mark(own)  # of one for all, as functions without a state are
            own = {}
        return ("function", cells, defaults, [[n, self.value(part, f"{path}.{n}")] for n, part in own.items()])

    def _cell(self, content: Any, path: str) -> Any:
        return ("empty",) if content is EMPTY else self.value(content, path)

    def _object(self, value: Any, path: str) -> tuple[Any, ...]:
        kind = type(value)
        if _says(value):
            self.kinds[path] = kind
            return ("said", self.value(value.state_dict(), f"{path}.state_dict()"))
        ours = _of(kind) == "stalegrid" and not kind.__module__.startswith("stalegrid.observe")
        if (ours and id(value) not in self._roots) or (_of(kind) == "torch" and not isinstance(value, _OWN)):
            return ("same",)  # which is saved by itself, or without a state
        if isinstance(value, Enum) or _is_python(kind) or not (hasattr(value, "__dict__") or slots(kind)):
            self.fixed[path] = pickled(value)
            return ("same",)
        self.kinds[path] = kind
        self._look(kind)
        # Such as a weight of which a forward makes another one.
        computed = spectral.computed(value) if isinstance(value, nn.Module) else ()
        named = [
            [n, ("same",) if n in computed else self.value(part, f"{path}.{n}" if path else n)]
            for n, part in attributes(value).items()
        ]
        return ("object", named)

    def _look(self, code: Any) -> None:
        """Note what classes and globals hold that code knows, which is one for all units of a process."""
        if id(code) in self._looked or _of(code) in (*_LIBRARIES, "stalegrid") or isinstance(code, ModuleType):
            return
        self._looked.add(id(code))
        self._alive.append(code)
        if isinstance(code, type):
            for kind in code.__mro__[:-1]:
                if _of(kind) not in (*_LIBRARIES, "stalegrid") and not _is_python(kind):
                    self._look_at_class(kind)
        elif isinstance(code, FunctionType):
            if isinstance(within := getattr(code, "__wrapped__", None), FunctionType):
                self._look(within)
            for name in _names(code.__code__):
                if name in code.__globals__:
                    self._look_at(f"global {name}", code.__globals__[name])

    def _look_at_class(self, kind: type) -> None:
        for name, value in vars(kind).items():
            own = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if isinstance(own, FunctionType):
                self._look(own)
            elif not name.startswith("__"):
                self._look_at(f"{kind.__qualname__}.{name}", own)

    def _look_at(self, path: str, value: Any) -> None:
        if isinstance(value, type | FunctionType):
            self._look(value)
            if isinstance(value, FunctionType) and vars(value):
                self.fixed[path] = mark(vars(value))
        elif not isinstance(value, ModuleType | BuiltinFunctionType | nn.Module):
            self.fixed[path] = mark(value)


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
    return _of(where) != "torch"


def _of(code: Any) -> str:
    return (getattr(code, "__module__", None) or "builtins").partition(".")[0]


def _is_python(kind: type) -> bool:
    """Return whether a class is of Python itself, or of NumPy: objects of it are compared, not looked into."""
    return _of(kind) in sys.stdlib_module_names or _of(kind) == "numpy"


@lru_cache(4096)  # every unit of a process looks at the same code, and reading it takes most of the time
def _names(code: CodeType) -> frozenset[str]:
    """Return the globals that code reads or binds."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL")}
    return frozenset(found).union(*(_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))
