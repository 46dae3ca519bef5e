"""What objects remember from one call to the next, wherever they keep it, and how others like them are given it.

Does not know: whose objects they are, files.

For what users write without a thought of saving it: attributes, closures, defaults, hooks, and what those hold.  An
object whose class has ``state_dict`` and ``load_state_dict`` of its own says itself what it remembers.  Nothing is left
out in silence: what cannot be saved is looked at as it was at the beginning, and is an error once it has changed.

A state is given to objects that were made as the first ones were.  Each thing that was one in two places is one again,
and what is there already is changed in place, so that whoever else holds it sees that too.
"""

import copy
import dis
import itertools
import pickle
import random
import sys
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.errors import ConfigError, DataError
from stalegrid.objects import spectral
from stalegrid.objects.reaching import EMPTY, held_in

PARAMETER = "parameter"
"""The first half of a pair that stands for something given, whose number is the second."""

_SINGLE = (type(None), bool, int, float, str)
_SEQUENCES = (list, tuple, set, frozenset, deque, torch.Size)
_MAPS = (dict, Counter, OrderedDict, defaultdict)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_OWN = (nn.Module, Optimizer, LRScheduler)
"""Classes of torch whose objects are looked into; others of torch keep nothing of a user's."""
_LIBRARIES = ("torch", "numpy", "builtins", "functools", "collections", "abc", "typing")


class Memory:
    """What a thing remembers, beside what is given.

    Args:
        thing: any object; several in a dictionary.
        given: tensors and objects that are saved elsewhere, and that those for whom a state is have too, in order.
    """

    def __init__(self, thing: Any, given: Sequence[object] = ()) -> None:
        self._thing = thing
        self._given = given
        first = _Saving(given, thing)
        first.value(thing, "")
        self._fixed, self._kinds = first.fixed, first.kinds

    def state_dict(self) -> Any:
        """Return what it remembers now, as a tree of plain values and tensors.

        Raises:
            ConfigError: something that cannot be saved has changed since the beginning.
        """
        now = _Saving(self._given, self._thing)
        found = now.value(self._thing, "")
        for path, mark in now.fixed.items():
            if path not in self._fixed or self._fixed[path] != mark:
                raise _unsaved(path)
        for path, kind in now.kinds.items():
            if self._kinds.get(path) is not kind:
                raise _unsaved(f"{path}: {kind.__name__}")
        return found

    def load_state_dict(self, state: Any) -> None:
        """Give it what another one like it remembered.

        Raises:
            DataError: it is not like that one.
        """
        _Loading(self._given).value(state, self._thing)


def remembered(thing: Any, given: Sequence[object] = ()) -> Any:
    """Return what an object remembers, whatever it was at the beginning; see :class:`Memory`."""
    return Memory(thing, given).state_dict()


def recall(thing: Any, state: Any, given: Sequence[object] = ()) -> None:
    """Let an object remember what another one like it did; see :class:`Memory`."""
    Memory(thing, given).load_state_dict(state)


def kept_apart(tree: Any) -> Any:
    """Return a state that does not change when what it is of goes on."""
    return copy.deepcopy(tree)


def _unsaved(path: str) -> ConfigError:
    return ConfigError(
        f"something changes in training that cannot be saved (it is: {path}); keep it in an attribute of the object "
        "that uses it, made in __init__, as plain values, containers or tensors, or give its class state_dict and "
        "load_state_dict, or run without checkpoints"
    )


class _Saving:
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
        if type(value) in _SINGLE:
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
        state = value.getstate() if isinstance(value, random.Random) else _bits(value).state
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
        defaults = [self.value(part, f"{path}.{n}") for n, part in _defaults(value)]
        own = vars(value)
        if not (closure or value.__defaults__ or value.__kwdefaults__) and own:
            self.fixed[f"{path}.__dict__"] = _mark(own)  # of one for all, as functions without a state are
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
        if isinstance(value, Enum) or _is_python(kind) or not (hasattr(value, "__dict__") or _slots(kind)):
            self.fixed[path] = _pickled(value)
            return ("same",)
        self.kinds[path] = kind
        self._look(kind)
        # Such as a weight of which a forward makes another one.
        computed = spectral.computed(value) if isinstance(value, nn.Module) else ()
        named = [
            [n, ("same",) if n in computed else self.value(part, f"{path}.{n}" if path else n)]
            for n, part in _attributes(value).items()
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
                self.fixed[path] = _mark(vars(value))
        elif not isinstance(value, ModuleType | BuiltinFunctionType | nn.Module):
            self.fixed[path] = _mark(value)


class _Loading:
    """Gives objects what a tree says."""

    def __init__(self, given: Sequence[object]) -> None:
        self._given = given
        self._made: dict[int, Any] = {}
        self._taken: list[object] = []

    def value(self, node: Any, there: Any) -> Any:
        if not isinstance(node, tuple):
            return node
        kind = node[0]
        if kind == PARAMETER:
            return self._given[node[1]]
        if kind == "view":
            whole = self._given[node[1]]
            assert isinstance(whole, Tensor)
            return whole.detach().as_strided(node[3], node[4], whole.storage_offset() + node[2])
        if kind == "number":
            return np.dtype(node[1]).type(node[2])
        if kind == "complex":
            return complex(node[1], node[2])
        if kind == "id":
            return id(self._given[node[1]])
        if kind == "again":
            return self._made[node[1]]
        if node == ("same",):
            return there
        if node == ("empty",):
            return EMPTY
        if kind == "same":
            self._made[node[1]] = there
            return there
        *_, number = node
        return self._once(node, there, number)

    def _once(self, node: tuple[Any, ...], there: Any, number: int) -> Any:
        kind = node[0]
        if any(one is there for one in self._taken):  # it is another one now
            there = None
        if kind in _CONTAINERS:
            return self._container(node, there, number)
        if kind == "array":
            self._made[number] = _array(node[1].numpy(), there)
        elif kind == "count":
            self._made[number] = itertools.count(*node[1:-1])
        elif kind == "tuple":
            old = there if isinstance(there, tuple) else ()
            parts = [self.value(part, old[i] if i < len(old) else None) for i, part in enumerate(node[1])]
            self._made[number] = type(there)(*parts) if hasattr(there, "_fields") else tuple(parts)
            if isinstance(there, torch.Size):
                self._made[number] = torch.Size(parts)
        else:
            if there is None:
                raise DataError(f"there is nothing to which a state could be given ({kind}); begin as the run began")
            self._made[number] = there
            self._taken.append(there)
            self._fill(node, there)
        return self._made[number]

    def _container(self, node: tuple[Any, ...], there: Any, number: int) -> Any:
        kind, content = node[0], node[1]
        make = _CONTAINERS[kind]
        if type(there).__name__ != kind:
            there = make()
        if kind == "deque" and there.maxlen != node[2]:
            there = deque(maxlen=node[2])
        self._made[number] = there
        self._taken.append(there)
        if kind in ("list", "set", "frozenset", "deque"):
            old = list(there) if kind in ("list", "deque") else []
            parts = [self.value(part, old[i] if i < len(old) else None) for i, part in enumerate(content)]
            if kind == "frozenset":
                self._made[number] = frozenset(parts)
                return self._made[number]
            there.clear()
            there.update(parts) if kind == "set" else there.extend(parts)
            return there
        pairs, names = [], list(there)
        for i, (key, part) in enumerate(content):
            own = self.value(key, None)
            if kind == "OrderedDict" and type(own) is int and own not in there and len(names) == len(content):
                own = names[i]  # hooks are numbered as they come in a process
            pairs.append((own, self.value(part, there.get(own))))
        there.clear()
        for own, part in pairs:
            there[own] = part
        return there

    def _fill(self, node: tuple[Any, ...], there: Any) -> None:
        kind, content = node[0], node[1]
        if kind == "leaf":
            with torch.no_grad():
                there.copy_(content)
        elif kind == "generator":
            there.set_state(content)
        elif kind == "drawer":
            state = _unplain(content)
            if isinstance(there, random.Random):
                there.setstate(state)
            else:
                _bits(there).state = state
        elif kind == "method":
            self.value(content, there.__self__)
        elif kind == "partial":
            parts = (there.func, there.args, there.keywords)
            made = [self.value(part, old) for part, old in zip(content, parts, strict=True)]
            there.__setstate__((*made, vars(there)))
        elif kind == "function":
            self._fill_function(node, there)
        elif kind == "said":
            there.load_state_dict(self.value(content, None))
        else:
            self._fill_object(content, there)

    def _fill_function(self, node: tuple[Any, ...], there: FunctionType) -> None:
        _, cells, defaults, own, _ = node
        for cell, part in zip(there.__closure__ or (), cells, strict=True):
            made = self.value(part, held_in(cell))
            if made is not EMPTY and made is not held_in(cell):
                cell.cell_contents = made
        made_defaults = [self.value(part, old) for part, (_, old) in zip(defaults, _defaults(there), strict=True)]
        number = len(there.__defaults__ or ())
        if made_defaults:
            there.__defaults__ = tuple(made_defaults[:number]) or None
            there.__kwdefaults__ = dict(zip(there.__kwdefaults__ or (), made_defaults[number:], strict=True)) or None
        for name, part in own:
            vars(there)[name] = self.value(part, vars(there).get(name))

    def _fill_object(self, content: Iterable[Any], there: Any) -> None:
        old = _attributes(there)
        new = {name: self.value(part, old.get(name)) for name, part in content}
        for name in old.keys() - new.keys():
            if name in getattr(there, "__dict__", {}):
                del vars(there)[name]
        for name, value in new.items():
            if value is old.get(name) and name in old:
                continue
            if hasattr(there, "__dict__") and name not in _slots(type(there)):
                vars(there)[name] = value  # not by setattr: a module's own is for parameters and buffers
            else:
                object.__setattr__(there, name, value)


_PARTIAL = ("func", "args", "keywords")
_CONTAINERS: dict[str, Callable[[], Any]] = {
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "dict": dict,
    "Counter": Counter,
    "OrderedDict": OrderedDict,
    "defaultdict": defaultdict,
}


def _roots(thing: Any) -> Iterator[Any]:
    if isinstance(thing, dict | list | tuple):
        for part in thing.values() if isinstance(thing, dict) else thing:
            yield from _roots(part)
    else:
        yield thing


def _array(value: np.ndarray, there: Any) -> np.ndarray:
    if isinstance(there, np.ndarray) and (there.shape, there.dtype) == (value.shape, value.dtype):
        there[...] = value
        return there
    return value.copy()


def _bits(drawer: Any) -> Any:
    return drawer.bit_generator if isinstance(drawer, np.random.Generator) else drawer._bit_generator


def _plain(state: Any) -> Any:
    """Return the state of a generator without arrays."""
    if isinstance(state, dict):
        return {name: _plain(part) for name, part in state.items()}
    if isinstance(state, tuple):
        return tuple(map(_plain, state))
    return {"array": state.tolist(), "type": state.dtype.str} if isinstance(state, np.ndarray) else state


def _unplain(state: Any) -> Any:
    if isinstance(state, dict):
        if state.keys() == {"array", "type"}:
            return np.array(state["array"], dtype=state["type"])
        return {name: _unplain(part) for name, part in state.items()}
    return tuple(map(_unplain, state)) if isinstance(state, tuple) else state


def _defaults(function: FunctionType) -> list[tuple[str, Any]]:
    positional = [(f"default {i}", part) for i, part in enumerate(function.__defaults__ or ())]
    return positional + list((function.__kwdefaults__ or {}).items())


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


def _slots(kind: type) -> list[str]:
    found = [vars(one).get("__slots__", ()) for one in kind.__mro__]
    return [name for names in found for name in ([names] if isinstance(names, str) else names) if name[:2] != "__"]


def _attributes(value: Any) -> dict[str, Any]:
    found = {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}
    if isinstance(value, Optimizer):
        found["param_groups"] = value.param_groups  # first, since what else it keeps has parameters for keys
    return {**found, **getattr(value, "__dict__", {})}


def _names(code: CodeType) -> set[str]:
    """Return the globals that code reads or binds."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL")}
    return found.union(*(_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _pickled(value: Any) -> Any:
    if isinstance(value, MappingProxyType):
        return len(value)
    try:
        return pickle.dumps(value)
    except Exception:  # anything can be raised
        # What moves whenever it is looked at is never the same; of others, such as a lock, nobody can say more.
        return object() if hasattr(value, "__next__") or hasattr(value, "read") else id(value)


def _mark(value: Any, depth: int = 3) -> Any:
    """Return what shows that something was changed, without a look at all that is in it."""
    if type(value) in _SINGLE:
        return value
    if isinstance(value, Tensor):
        return (id(value), value._version)
    if isinstance(value, torch.Generator):
        return bytes(value.get_state().numpy())
    if isinstance(value, np.ndarray):
        return (id(value), value.tobytes() if value.nbytes < _LARGE else None)
    if depth and isinstance(value, Mapping):
        some = itertools.islice(value.items(), _MANY)
        return (type(value), len(value), [(_mark(k, 0), _mark(part, depth - 1)) for k, part in some])
    if depth and isinstance(value, list | tuple | set | frozenset | deque):
        return (type(value), len(value), [_mark(part, depth - 1) for part in itertools.islice(value, _MANY)])
    if depth and hasattr(value, "__dict__") and not isinstance(value, type | FunctionType | nn.Module):
        return (type(value), [(name, _mark(part, depth - 1)) for name, part in vars(value).items()])
    return id(value)


_MANY, _LARGE = 1000, 1 << 20
