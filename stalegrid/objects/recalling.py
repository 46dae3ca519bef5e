"""Gives objects what a tree says that others like them remembered.

Does not know: how the tree was made, files.
"""

import itertools
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stalegrid.errors import DataError
from stalegrid.objects.reaching import EMPTY, held_in
from stalegrid.objects.within import PARAMETER, attributes, bits_of, defaults_of, slots

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


class Recalling:
    """Gives objects what a tree says."""

    def __init__(self, given: Sequence[object]) -> None:
        self._given = given
        self._made: dict[int, Any] = {}
        self._taken: list[object] = []

    def value(self, node: Any, there: Any) -> Any:
        """Return what a node of the tree says, made in place of what is there where that can be.

        Raises:
            DataError: there is nothing to which a state could be given.
        """
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
            self._made[number] = _array(node[1].cpu().numpy(), there)
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
            there.set_state(content.cpu())
        elif kind == "drawer":
            state = _unplain(content)
            if isinstance(there, random.Random):
                there.setstate(state)
            else:
                bits_of(there).state = state
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
        made_defaults = [self.value(part, old) for part, (_, old) in zip(defaults, defaults_of(there), strict=True)]
        number = len(there.__defaults__ or ())
        if made_defaults:
            there.__defaults__ = tuple(made_defaults[:number]) or None
            there.__kwdefaults__ = dict(zip(there.__kwdefaults__ or (), made_defaults[number:], strict=True)) or None
        for name, part in own:
            vars(there)[name] = self.value(part, vars(there).get(name))

    def _fill_object(self, content: Iterable[Any], there: Any) -> None:
        old = attributes(there)
        new = {name: self.value(part, old.get(name)) for name, part in content}
        for name in old.keys() - new.keys():
            if name in getattr(there, "__dict__", {}):
                del vars(there)[name]
        for name, value in new.items():
            if value is old.get(name) and name in old:
                continue
            if hasattr(there, "__dict__") and name not in slots(type(there)):
                vars(there)[name] = value  # not by setattr: a module's own is for parameters and buffers
            else:
                object.__setattr__(there, name, value)


def _array(value: np.ndarray, there: Any) -> np.ndarray:
    if isinstance(there, np.ndarray) and (there.shape, there.dtype) == (value.shape, value.dtype):
        there[...] = value
        return there
    return value.copy()


def _unplain(state: Any) -> Any:
    if isinstance(state, dict):
        if state.keys() == {"array", "type"}:
            return np.array(state["array"], dtype=state["type"])
        return {name: _unplain(part) for name, part in state.items()}
    return tuple(map(_unplain, state)) if isinstance(state, tuple) else state
