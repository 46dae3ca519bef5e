"""Copies of functions and objects with their state, which Python copies by reference.

Does not know: what the functions are for.

A loss or a factory may count its calls, in its closure, its defaults or its attributes.  Whoever uses such a copy, a
trial or one unit of many, leaves no trace in the user's own.
"""

import copy
from collections.abc import Iterable
from functools import partial
from types import CellType, FunctionType
from typing import Any, TypeVar

from torch import nn

from stalegrid.copies import copied
from stalegrid.reaching import EMPTY, held_in

T = TypeVar("T")


def renewed(value: T, shared: Iterable[object] = ()) -> T:
    """Copy functions, objects and modules with their state, so that whoever uses the copy leaves no trace.

    State in a module's globals is not copied, nor what Python cannot copy.

    Args:
        value: a function, an object, or a tuple of such.
        shared: what copies refer to instead of copying it, such as data.
    """
    return _renew(value, {id(one): one for one in shared})  # type: ignore[no-any-return]


def _renew(value: Any, memo: dict[int, Any]) -> Any:
    if id(value) not in memo:
        memo[id(value)] = _renew_once(value, memo)
    return memo[id(value)]


def _renew_once(value: Any, memo: dict[int, Any]) -> Any:
    if type(value) is tuple:
        return tuple(_renew(part, memo) for part in value)
    if isinstance(value, FunctionType):
        return _renew_function(value, memo)
    if type(value) is partial:
        keywords = {name: _renew(part, memo) for name, part in value.keywords.items()}
        return partial(_renew(value.func, memo), *_renew(value.args, memo), **keywords)
    try:
        return copied(value, memo) if isinstance(value, nn.Module) else copy.deepcopy(value, memo)
    except Exception:  # what cannot be copied, such as a module or an open file, is shared
        return value


def _renew_function(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    closure = function.__closure__ or ()
    if not (closure or function.__defaults__ or function.__kwdefaults__):
        return function
    cells = tuple(CellType() for _ in closure)
    own = FunctionType(function.__code__, function.__globals__, function.__name__, closure=cells)
    memo[id(function)] = own  # before its content, which may hold the function itself
    own.__qualname__ = function.__qualname__
    own.__defaults__ = _renew(function.__defaults__, memo)
    own.__kwdefaults__ = _renew(function.__kwdefaults__, memo)
    vars(own).update(vars(function))
    for cell, old in zip(cells, closure, strict=True):
        if (content := held_in(old)) is not EMPTY:
            cell.cell_contents = _renew(content, memo)
    return own
