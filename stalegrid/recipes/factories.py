"""Factories of the user's own, found by their path and called.

Does not know: what they make it for.
"""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from stalegrid.errors import ConfigError, StalegridError
from stalegrid.written.named import said, value_of


def factory_of(path: str, args: Mapping[str, Any], what: str) -> partial[Any]:
    """Return a factory with its arguments.

    Args:
        path: ``PACKAGE.MODULE:FACTORY``.
        args: by keyword.
        what: it makes, for errors.

    Raises:
        ConfigError: there is no such factory, or it takes no such argument.
    """
    factory = value_of(path, what)
    if not callable(factory):
        raise ConfigError(f"the factory cannot be called ({what}: {path}, it is: {type(factory).__name__})")
    try:
        names = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of a class in C, which tells nobody
        return partial(factory, **args)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in names.values())
    wrong = [name for name in args if name not in names and not takes_any]
    if wrong:
        raise ConfigError(
            f"the factory takes no such argument ({what}: {path}, argument: {wrong[0]}); it takes: "
            f"{', '.join(names) or 'none'}"
        )
    return partial(factory, **args)


def made(factory: partial[Any], path: str, what: str) -> Any:
    """Return what a factory makes.

    Raises:
        ConfigError: it raises something.
    """
    try:
        return factory()
    except StalegridError:
        raise
    except Exception as problem:  # the factory is the user's: anything can be raised
        raise ConfigError(f"the factory fails ({what}: {path}): {said(problem)}") from problem


def refuse_args(args: Mapping[str, Any], name: object, what: str) -> None:
    """Refuse arguments for what has none.

    Raises:
        ConfigError: there are some.
    """
    if args:
        raise ConfigError(
            f"arguments are those of a factory of your own ({what}: {name}, {what}.args: {', '.join(args)}); leave "
            "them out"
        )
