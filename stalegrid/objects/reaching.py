"""What a function can look at: what it closes over, the globals that its code names, and what those hold.

Does not know: models, what looking at something means.
"""

import dis
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

DEPTH = 5
"""Steps from a function to what it reaches at most: partial, function, closure, container, object."""

LEAVES = (Tensor, str, bytes, int, float, complex, type, ModuleType, type(None))
"""What is not looked into."""

CONTAINERS = (dict, list, tuple, set, frozenset, deque, partial)

EMPTY = object()
"""What a cell of a closure holds whose name is not bound yet."""


def reached(*functions: Any, named: bool = True) -> Iterator[Any]:
    """Yield functions and what they hold, near things first, each once.

    Args:
        functions: functions, methods, partials, or objects that are called.
        named: whether to follow the globals that a function's code names.
    """
    seen: set[int] = set()
    waiting = deque((function, DEPTH) for function in functions)
    while waiting:
        value, depth = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if depth and not isinstance(value, LEAVES):
            waiting.extend((part, depth - 1) for part in _parts(value, named))


def by_reference(value: Any, depth: int = 3) -> Iterator[FunctionType | weakref.ref[Any]]:
    """Yield what a deep copy of a value shares with it: the functions and weak references in it.

    Not those in modules within it, nor in objects that say themselves what is copied of them.
    """
    if isinstance(value, FunctionType | weakref.ref):
        yield value
    elif depth and not isinstance(value, (nn.Module, MethodType, *LEAVES)):
        own = getattr(type(value), "__getstate__", None) == object.__getstate__
        inner = _parts(value, False) if isinstance(value, CONTAINERS) else list(getattr(value, "__dict__", {}).values())
        for part in inner if own else ():
            yield from by_reference(part, depth - 1)


def held_in(cell: CellType) -> Any:
    """Return what a cell of a closure holds."""
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return EMPTY


def _parts(value: Any, named: bool) -> Iterable[Any]:
    if isinstance(value, FunctionType):
        return _of_function(value, named)
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, weakref.ref):
        return [value()]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return list(value)
    if isinstance(value, nn.Module):
        return [*value.modules(), *value.parameters(), *value.buffers(), *_of_object(value)]
    return [] if isinstance(value, BuiltinFunctionType) else _of_object(value)


def _of_function(function: FunctionType, named: bool) -> list[Any]:
    held = [held_in(cell) for cell in function.__closure__ or ()]
    held += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *vars(function).values()]
    if named and not (function.__module__ or "").startswith("torch."):  # which knows nothing of the user's
        held += [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]
    return held


def _of_object(value: Any) -> list[Any]:
    # What an object does when it is called may name globals.
    called = [getattr(type(value), name, None) for name in ("__call__", "forward")]
    return [*getattr(value, "__dict__", {}).values(), *called]


def _names(code: CodeType) -> set[str]:
    """Return the globals that code reads, and not the attributes that happen to be called the same."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return found.union(*(_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))
