"""Values by name: ``PACKAGE.MODULE:NAME`` for what a user has in files of their own.

Does not know: what the values are for.
"""

import importlib
import traceback
from typing import Any, TypeGuard

from stalegrid.errors import ConfigError


def is_path(name: object) -> TypeGuard[str]:
    """Return whether a name is one of a value in a module: ``PACKAGE.MODULE:NAME``."""
    return isinstance(name, str) and ":" in name


def value_of(path: str, what: str) -> Any:
    """Return the value that a path names.

    Args:
        path: ``PACKAGE.MODULE:NAME``; modules are looked for like those of an import.
        what: for which it was given, for errors.

    Raises:
        ConfigError: the module cannot be imported, or has nothing of that name.
    """
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ConfigError(f"a value is named by PACKAGE.MODULE:NAME ({what}: {path!r})")
    try:
        found: Any = importlib.import_module(module)
    except Exception as problem:  # the module is the user's: anything can be raised
        raise ConfigError(
            f"the module cannot be imported ({what}: {path}): {said(problem)}; name one that python -c 'import "
            f"{module}' finds from here"
        ) from problem
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"the module has nothing of that name ({what}: {path}, missing: {part})")
        found = getattr(found, part)
    return found


def name_of(value: Any) -> str:
    """Return the path of a class or function, or what another value calls itself."""
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    name = str(getattr(value, "name", None) or type(value).__qualname__)
    made_with = ", ".join(f"{field}={given!r}" for field, given in getattr(value, "__dict__", {}).items())
    # With what it was made, so that nobody makes it again without; such a text is no path, and refused if read back.
    return f"{name}({made_with})" if is_path(name) and made_with else name


def said(problem: BaseException) -> str:
    """Return the last line of a problem's traceback, and where in the user's code it was raised."""
    last = traceback.format_exception_only(problem)[-1].strip()
    frames = traceback.extract_tb(problem.__traceback__)
    return f"{last} (line {frames[-1].lineno} of {frames[-1].filename})" if frames else last
