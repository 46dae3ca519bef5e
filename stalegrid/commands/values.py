"""Texts of the command line, read as what the type of an option says.

Does not know: which options there are.
"""

import reprlib
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from stalegrid.errors import ConfigError
from stalegrid.written import called, fits, parse_yaml


def read(text: str, hint: Any, option: str) -> Any:
    """Return the value that a text stands for.

    Args:
        text: of one option; entries of a list have commas between them, or stand in brackets.
        hint: the type of the option.
        option: its name as the user wrote it, for the error.

    Raises:
        ConfigError: the text is no value of the type.
    """
    if text == "null" and type(None) in get_args(hint):
        return None
    kinds = writable(hint)
    for kind in kinds:
        try:
            value = _parsed(text, kind)
        except ValueError:
            continue
        if fits(value, kind):
            return value
    raise ConfigError(f"{option} must be {' or '.join(map(called, kinds))} ({option}: {reprlib.repr(text)})")


def writable(hint: Any) -> list[Any]:
    """Return what of a type can be written, text last, which takes whatever is left: no classes, functions, objects."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kept = [part for part in parts if get_origin(part) in (list, dict, Literal) or part in _SINGLE]
    return sorted(kept, key=lambda part: part is str)


def metavar(hint: Any, name: str) -> str:
    """Return what stands for the values of an option in its help."""
    kinds = writable(hint)
    if kinds == [str]:
        # Where an object may be given too, a text is the name of one.
        return "NAME" if name in ("name", "kind") or set(get_args(hint)) - {str, type(None)} else "TEXT"
    # Rows of numbers beside text are written on no line with pleasure.
    return "NAME" if str in kinds else "|".join(_sign(kind, name) for kind in kinds)


def _sign(kind: Any, name: str) -> str:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if get_origin(kind) is list:
        entry = metavar(get_args(kind)[0], name)
        return f"{entry},{entry},.." if len(entry) == 1 else "NAME,.."
    signs = {int: "N", float: "X", bool: "true|false", Path: "DIR" if name in ("folder", "run") else "FILE"}
    return signs.get(kind, "YAML")


_SINGLE = (bool, int, float, str, Path)


def _parsed(text: str, kind: Any) -> Any:
    """Parse a text as one kind of value.

    Raises:
        ValueError: it is none of that kind.
    """
    if get_origin(kind) is list:
        return _list(text, get_args(kind)[0])
    if get_origin(kind) is dict:
        return parse_yaml(text, f"value: {reprlib.repr(text)}")
    if kind is bool:
        return {"true": True, "false": False}.get(text)
    return text if get_origin(kind) is Literal else kind(text)


def _list(text: str, hint: Any) -> list[Any]:
    if text.startswith("["):
        found: list[Any] = parse_yaml(text, f"value: {reprlib.repr(text)}")
        return found
    entry = writable(hint)[0]
    if get_origin(entry) is list:
        raise ValueError(text)
    return [_parsed(part.strip(), entry) for part in text.split(",")] if text else []
