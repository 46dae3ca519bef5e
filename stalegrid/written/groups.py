"""Groups of settings, one a wing: typed fields that check themselves, written down as plain values and read back.

Does not know: which groups there are, what any setting does.
"""

import dataclasses
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from stalegrid.errors import ConfigError
from stalegrid.written.named import name_of
from stalegrid.written.numbers import finite, whole

G = TypeVar("G")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that belong together; every field is checked against its type.

    Attributes:
        NAME: of the group, as users write it.
        OWN: the field that the name alone stands for, as in ``method: dsp``; None for none.

    Raises:
        ConfigError: a value is of another type.
    """

    NAME: ClassVar[str]
    OWN: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for name, hint in hints_of(type(self)).items():
            object.__setattr__(self, name, taken(getattr(self, name), hint, f"{self.NAME}.{name}"))

    def said(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields of the group as they are written down."""
        return {name: text_of(value) for name, value in fields.items()}


def hints_of(kind: type[Any]) -> Mapping[str, Any]:
    """Return the types of the fields of a group, or of what consists of groups."""
    return _hints(kind)


def _found(kind: type[Any]) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return MappingProxyType({field.name: hints[field.name] for field in fields(kind)})


_hints: Callable[[Any], Mapping[str, Any]] = cache(_found)  # asked for with every group that is made, and slow


def groups_of(kind: type[Any]) -> dict[str, type[Group]]:
    """Return the groups that a kind of settings consists of, by name."""
    return {name: hint for name, hint in hints_of(kind).items() if isinstance(hint, type) and issubclass(hint, Group)}


def grouped(kind: type[G], given: Mapping[str, Any], short: Mapping[str, str]) -> G:
    """Return settings of what was asked for.

    Args:
        kind: consists of groups.
        given: by the name of a group: the group, a mapping of its fields, or what its name alone stands for; or by a
            short name.
        short: of fields, such as ``stages`` for ``grid.stages``.

    Raises:
        ConfigError: there is no such name, two say the same, or a value is of another type.
    """
    kinds = groups_of(kind)
    whole_ones = {name: value for name, value in given.items() if isinstance(value, Group) and name in kinds}
    parts = spread(kind, {name: value for name, value in given.items() if name not in whole_ones}, short)
    return kind(**{name: _group(of, whole_ones.get(name), parts.get(name, {})) for name, of in kinds.items()})


def spread(kind: type[Any], given: Mapping[str, Any], short: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what was asked for by group and field; see :func:`grouped`, but for whole groups."""
    kinds = groups_of(kind)
    known = [*kinds, *(name for name, path in short.items() if path.partition(".")[0] in kinds)]
    parts: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(unknown("option", str(name), known))
        group, _, named = short.get(name, name).partition(".")
        for field, entry in ({named: value} if named else _entries(kinds[group], value)).items():
            if field in parts.setdefault(group, {}):
                raise ConfigError(f"an option is given twice ({group}.{field}: {parts[group][field]!r} and {entry!r})")
            parts[group][field] = entry
    return parts


def _entries(kind: type[Group], value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        for field in value:
            if field not in hints_of(kind):
                raise ConfigError(unknown(f"option of {kind.NAME}", str(field), list(hints_of(kind))))
        return value
    if kind.OWN is None:
        shown = ", ".join(hints_of(kind))
        raise ConfigError(f"{kind.NAME} is a group ({kind.NAME}: {reprlib.repr(value)}); name its options: {shown}")
    return {kind.OWN: value}


def _group(kind: type[Group], made: Group | None, changed: Mapping[str, Any]) -> Group:
    if made is None:
        return kind(**changed)
    if not isinstance(made, kind):
        raise ConfigError(f"{kind.NAME} takes {kind.__name__} ({kind.NAME}: {type(made).__name__})")
    usual = kind()
    for field, value in changed.items():
        if getattr(made, field) != getattr(usual, field):
            raise ConfigError(
                f"an option is given twice ({kind.NAME}.{field}: {getattr(made, field)!r} and {value!r}); give it once"
            )
    return dataclasses.replace(made, **changed)


def taken(value: Any, hint: Any, what: str) -> Any:
    """Return a value as a field of a type keeps it.

    Args:
        value: that was given.
        hint: the type of the field.
        what: the field is called, for the error.

    Raises:
        ConfigError: the value is of another type.
    """
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        value = value.tolist()
    if isinstance(value, str) and hint == Path | None:
        value = Path(value)
    if not fits(value, hint):
        raise ConfigError(f"{what} must be {called(hint)} ({what}: {reprlib.repr(value)})")
    return _kept(value)


def _kept(value: Any) -> Any:
    """Return a value whose lists and mappings nobody else can change later."""
    if type(value) is list:
        return [_kept(entry) for entry in value]
    return {name: _kept(entry) for name, entry in value.items()} if type(value) is dict else value


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """Say that there is no such name, and which one is nearest."""
    hint = nearest(name, {one: one for one in known})
    return f"unknown {what} ({what}: {name!r}); {hint}there are: {', '.join(known)}"


def nearest(name: str, shown: Mapping[str, str]) -> str:
    """Ask whether the nearest name was meant, if one is near.

    Args:
        name: that there is none of.
        shown: names that there are, and what is shown of each.
    """
    near = get_close_matches(name, shown, n=1)
    return f"did you mean {shown[near[0]]}? " if near else ""


def plain(settings: Any, always: Collection[str] = ()) -> dict[str, Any]:
    """Return what settings say beside the defaults, group by group, as plain values that can be written down.

    Args:
        settings: consist of groups.
        always: what is written where it is not left out, such as ``method.name``.
    """
    found: dict[str, Any] = {}
    for name, kind in groups_of(type(settings)).items():
        said, usual = vars(getattr(settings, name)), vars(kind())
        wanted = {field for field in said if f"{name}.{field}" in always and said[field] is not None}
        changed = {field: value for field, value in said.items() if value != usual[field] or field in wanted}
        if changed:
            found[name] = getattr(settings, name).said(changed)
    return found


def text_of(value: Any) -> Any:
    """Return a value as it is written down: plain values as they are, others by their names."""
    if hasattr(value, "tolist") and not isinstance(value, type):  # numpy's, inside of lists and mappings
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [text_of(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(name): text_of(entry) for name, entry in value.items()}
    return str(value) if isinstance(value, Path) else name_of(value)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is what the type of a field says."""
    parts, origin = get_args(hint), get_origin(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in parts
    if origin is list:
        return isinstance(value, list | tuple) and all(fits(entry, parts[0]) for entry in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if origin is type:
        return isinstance(value, type) and issubclass(value, parts[0])
    if origin is Callable:
        return callable(value)
    if parts:
        return any(fits(value, part) for part in parts)
    if hint in (int, float):
        return whole(value) if hint is int else finite(value)
    return isinstance(value, hint) and (hint not in (str, Path) or _written(str(value)))


def _written(text: str) -> bool:
    """Return whether files and systems take a text: what came from no UTF-8 holds halves of characters."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)


def called(hint: Any) -> str:
    """Return what the type of a field is called."""
    parts, origin = get_args(hint), get_origin(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is list:
        return f"a list, each entry {called(parts[0])}"
    if origin is dict:
        return "names with values"
    if origin is type:
        return f"a class of {parts[0].__name__}"
    if origin is Callable:
        return "a function"
    if parts:
        return " or ".join(called(part) for part in parts)
    return _NAMES.get(hint) or f"a {hint.__name__}"


_NAMES = {
    bool: "true or false",
    int: "a whole number of 64 bits",
    float: "a number that is not infinite",
    str: "text in UTF-8",
    Path: "a path in UTF-8",
    type(None): "left out",
}
