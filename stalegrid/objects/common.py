"""What the classes and globals hold that code knows: one for all copies and all units of a process.

Does not know: whose code it is, how other things are saved or copied.
"""

import dis
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from stalegrid.objects.holding import held
from stalegrid.objects.libraries import is_of_a_library
from stalegrid.objects.marks import Parts, mark
from stalegrid.objects.reaching import EMPTY, held_in
from stalegrid.objects.within import defaults_of


class Common:
    """Notes what classes and globals hold that code knows.

    Attributes:
        found: by its name, what shows that it was changed.
    """

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self._looked: set[int] = set()
        self._alive: list[object] = []  # so that no number is another object's

    def look(self, code: Any) -> None:
        """Note what a class or a function of the user knows, and what those know that it knows; of all else nothing."""
        if self._is_new(code):
            self._look_in(code)

    def _is_new(self, code: Any) -> bool:
        if id(code) in self._looked or is_of_a_library(code):
            return False
        self._looked.add(id(code))
        self._alive.append(code)
        return True

    def _look_in(self, code: Any) -> None:
        if isinstance(code, type):
            for kind in code.__mro__[1:-1]:
                self.look(kind)
            self._look_at_class(code)
        elif isinstance(code, FunctionType):
            if isinstance(within := getattr(code, "__wrapped__", None), FunctionType):
                self.look(within)
            for name, value in _known(code):
                self._look_at(name, value)

    def of_function(self, function: FunctionType) -> None:
        """Note the attributes of a function that is one for all."""
        if vars(function):
            self.found[f"{function.__qualname__}.__dict__"] = mark(vars(function))

    def _look_at_class(self, kind: type) -> None:
        for name, value in vars(kind).items():
            own = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if isinstance(own, FunctionType) or not name.startswith("__"):
                self._look_at(f"{kind.__qualname__}.{name}", own)

    def _look_at(self, name: str, value: Any) -> None:
        if isinstance(value, type):
            self.look(value)
        elif isinstance(value, FunctionType):
            if self._is_new(value):
                self._look_in(value)
                self.of_function(value)
                for part, content in _kept(value):
                    self._look_at(f"{name}: {part}", content)
        elif isinstance(value, nn.Module):
            own = {part: mark(values, 1) for part, values in held(value).items()}
            self.found[name] = Parts(type(value), len(own), own)
        elif not isinstance(value, ModuleType | BuiltinFunctionType):
            self.look(type(value))
            self.found[name] = mark(value)


def _known(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the globals that a function's code names, and what it names of modules, each with its name."""
    named, within = _names(function.__code__)
    for name in named:
        if name not in function.__globals__:
            continue
        value = function.__globals__[name]
        if not isinstance(value, ModuleType):
            yield f"global {name}", value
        elif not is_of_a_library(value):
            yield from ((f"{value.__name__}.{part}", vars(value)[part]) for part in within if part in vars(value))


def _kept(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function keeps in its closure and its defaults, each with its name."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    yield from ((name, content) for name, cell in cells if (content := held_in(cell)) is not EMPTY)
    yield from defaults_of(function)


@lru_cache(4096)  # every unit of a process looks at the same code, and reading it takes most of the time
def _names(code: CodeType) -> tuple[Sequence[str], Sequence[str]]:
    """Return the globals that code reads or binds, and the attributes, in its order."""
    steps = list(dis.get_instructions(code))
    named = [i.argval for i in steps if i.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL")]
    within = [i.argval for i in steps if i.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")]
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            others = _names(inner)
            named += others[0]
            within += others[1]
    return tuple(dict.fromkeys(named)), tuple(dict.fromkeys(within))
