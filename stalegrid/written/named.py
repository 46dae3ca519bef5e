"""Values by name: ``PACKAGE.MODULE:NAME`` for what a user has in files of their own.

Does not know: what the values are for.
"""

import importlib
import sysconfig
import traceback
from pathlib import Path
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
        raise ConfigError(f"a value of your own is named by PACKAGE.MODULE:NAME ({what}: {path!r}), not by its file")
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as problem:  # the module is the user's: anything can be raised
        raise ConfigError(
            f"the module cannot be imported ({what}: {path}): {said(problem)}; name one that python -c 'import "
            f"{module}' finds from here"
        ) from problem
    found: Any = loaded
    for part in name.split("."):
        if not hasattr(found, part):
            # The file, as it may be another module of the same name.
            where = getattr(loaded, "__file__", None) or "built into Python"
            raise ConfigError(
                f"the module has nothing of that name ({what}: {path}, missing: {part}, module: {where}); name what it "
                "has, or rename your module if this is another one"
            )
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
    """Return what a problem says, in one line, and the last line of the user's own code on the way to it."""
    text = " ".join(f"{type(problem).__name__}: {problem}".split())
    if isinstance(problem, SyntaxError) and problem.filename:
        return f"{text} (line {problem.lineno} of {problem.filename})"
    frames = [f for f in traceback.extract_tb(problem.__traceback__) if not f.filename.startswith(_NOBODYS)]
    own = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)] or frames
    return f"{text} (line {own[-1].lineno} of {own[-1].filename})" if own else text


_NOBODYS = ("<frozen ", str(Path(importlib.__file__).parent), str(Path(__file__).parents[1]))
"""Beginnings of the names of files that call whatever is the user's."""

_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
