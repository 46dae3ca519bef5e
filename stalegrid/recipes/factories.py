"""Factories of the user's own: found by their path, called, and what they return looked at.

Does not know: what it is wanted for.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from stalegrid.errors import ConfigError
from stalegrid.written import nearest, said, value_of


@dataclass(frozen=True)
class Wanted:
    """What a factory shall return.

    Args:
        what: the option that names the factory.
        kind: of value.
        remedy: what to return instead, for errors.
        given: how many arguments the factory is given beside those that users name.
    """

    what: str
    kind: type[Any]
    remedy: str
    given: int = 0


def factory_of(path: str, args: Mapping[str, Any], wanted: Wanted) -> partial[Any]:
    """Return a factory with its arguments, which says so where it fails.

    Args:
        path: ``PACKAGE.MODULE:FACTORY``; a class is one.
        args: by keyword.
        wanted: from it.

    Raises:
        ConfigError: there is no such factory, or it cannot be called with these arguments.
    """
    what = wanted.what
    factory = value_of(path, what)
    if not callable(factory):
        raise ConfigError(f"the factory cannot be called ({what}: {path}, it is: {type(factory).__name__})")
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # of a class in C, which tells nobody
        return partial(made, factory, path, wanted, **args)
    names = signature.parameters
    takes = f"it takes: {', '.join(map(_written, names.values())) or 'none'}"
    takes_any = any(p.kind is p.VAR_KEYWORD for p in names.values())
    for name in args:
        if name not in names and not takes_any:
            raise ConfigError(
                f"the factory takes no such argument ({what}: {path}, argument: {name}); "
                f"{nearest(name, {one: one for one in names})}{takes}"
            )
    try:
        signature.bind(*[None] * wanted.given, **args)
    except TypeError as problem:
        raise ConfigError(f"the factory cannot be called so ({what}: {path}): {problem}; {takes}") from problem
    return partial(made, factory, path, wanted, **args)


def made(factory: Callable[..., Any], path: str, wanted: Wanted, /, *given: Any, **args: Any) -> Any:
    """Return what a factory makes.

    Raises:
        ConfigError: it raises something, or returns something else.
    """
    try:
        found = factory(*given, **args)
    except (Exception, SystemExit) as problem:  # the factory is the user's: anything can be raised
        raise ConfigError(f"the factory fails ({wanted.what}: {path}): {said(problem)}") from problem
    if not isinstance(found, wanted.kind):
        raise ConfigError(
            f"the factory returns no {wanted.what} ({wanted.what}: {path}, it returns: {type(found).__name__}); "
            f"{wanted.remedy}"
        )
    return found


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


def _written(parameter: inspect.Parameter) -> str:
    """Return an argument without its type."""
    return str(parameter.replace(annotation=parameter.empty))
