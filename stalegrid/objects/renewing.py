"""Copies of a loss or a factory with its state, of which Python copies only a part.

Does not know: what the functions are for.

A loss or a factory may count its calls, in its closure, its defaults or its attributes.  Whoever uses such a copy, a
trial or one unit of many, leaves no trace in the user's own.
"""

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import nn

from stalegrid.objects.copies import copied
from stalegrid.objects.functions import Memo, renew

T = TypeVar("T")


def renewed(value: T, shared: Iterable[object] = ()) -> T:
    """Copy functions, objects and modules with their state, so that whoever uses the copy leaves no trace.

    State in a module's globals is not copied, nor what Python cannot copy.

    Args:
        value: a function, an object, or a tuple of such.
        shared: what copies refer to instead of copying it, such as data.
    """
    return renew(value, {id(one): one for one in shared}, _copied_or_shared)  # type: ignore[no-any-return]


def _copied_or_shared(value: Any, memo: Memo) -> Any:
    try:
        return copied(value, memo) if isinstance(value, nn.Module) else copy.deepcopy(value, memo)
    except Exception:  # what cannot be copied, such as a module of Python or an open file, is shared
        return value
