"""Copies of functions with the state in their closures, defaults and arguments, which Python copies by reference.

Does not know: what the functions are for, how what they hold is copied.
"""

from collections.abc import Callable
from functools import partial
from types import CellType, FunctionType
from typing import Any

from stalegrid.objects.reaching import EMPTY, held_in

Memo = dict[int, Any]
"""By the id of an original: its copy, as :func:`copy.deepcopy` has it."""


def renew(value: Any, memo: Memo, copy: Callable[[Any, Memo], Any]) -> Any:
    """Copy functions, partials and tuples of them with their state; what is in the globals of a module is shared.

    Args:
        value: a function, or whatever one holds.
        memo: what is copied already; gets what is copied now.
        copy: copies all else.
    """
    if id(value) not in memo:
        memo[id(value)] = _renew_once(value, memo, copy)
    return memo[id(value)]


def _renew_once(value: Any, memo: Memo, copy: Callable[[Any, Memo], Any]) -> Any:
    if type(value) is tuple:
        return tuple(renew(part, memo, copy) for part in value)
    if isinstance(value, FunctionType):
        return _renew_function(value, memo, copy)
    if type(value) is partial:
        keywords = {name: renew(part, memo, copy) for name, part in value.keywords.items()}
        return partial(renew(value.func, memo, copy), *renew(value.args, memo, copy), **keywords)
    return copy(value, memo)


def _renew_function(function: FunctionType, memo: Memo, copy: Callable[[Any, Memo], Any]) -> FunctionType:
    closure = function.__closure__ or ()
    # It has no state of its own; its globals are one for all copies anyway.
    if not (closure or function.__defaults__ or function.__kwdefaults__):
        return function
    cells = tuple(CellType() for _ in closure)
    own = FunctionType(function.__code__, function.__globals__, function.__name__, closure=cells)
    memo[id(function)] = own  # before its content, which may hold the function itself
    own.__qualname__ = function.__qualname__
    own.__defaults__ = renew(function.__defaults__, memo, copy)
    own.__kwdefaults__ = renew(function.__kwdefaults__, memo, copy)
    vars(own).update(vars(function))
    for cell, old in zip(cells, closure, strict=True):
        if (content := held_in(old)) is not EMPTY:
            cell.cell_contents = renew(content, memo, copy)
    return own
