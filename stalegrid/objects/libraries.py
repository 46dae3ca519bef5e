"""Whose code something is: the user's, Python's, or a library's.

Does not know: what anybody looks for in it.
"""

import argparse
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from stalegrid.objects.within import slots

_INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders of installed libraries."""

_PLAIN = (SimpleNamespace, argparse.Namespace)
"""Classes of Python whose objects have attributes of the user's."""


def root(code: Any) -> str:
    """Return the outermost package that a class, a function or a module is of."""
    name = code.__name__ if isinstance(code, ModuleType) else getattr(code, "__module__", None)
    return (name or "builtins").partition(".")[0]


def is_python(kind: type) -> bool:
    """Return whether a class is of Python itself, or of NumPy: objects of it are compared, not looked into."""
    return root(kind) in sys.stdlib_module_names or root(kind) == "numpy"


def is_of_a_library(code: Any) -> bool:
    """Return whether code is of Python, of this one or of a library that is installed: what those count is no model's.

    Args:
        code: a class, a function or a module.
    """
    module = code if isinstance(code, ModuleType) else sys.modules.get(getattr(code, "__module__", None) or "builtins")
    within = Path(getattr(module, "__file__", None) or "").parts
    return root(code) in (*sys.stdlib_module_names, "stalegrid") or not _INSTALLED.isdisjoint(within)


def has_attributes_of_a_user(value: Any) -> bool:
    """Return whether what an object keeps in attributes is what a user put there."""
    keeps = hasattr(value, "__dict__") or slots(type(value))
    return bool(keeps) and (isinstance(value, _PLAIN) or not is_of_a_library(type(value)))
