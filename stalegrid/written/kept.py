"""Records read back from files that anybody may have changed: parsed, and checked field by field.

Does not know: which records there are.

A shape says what a record must be: a :class:`Kind` for a single value, ``[shape]`` for a list, ``{name: shape}`` for a
record, which may have further fields, and ``{kind: shape}`` for any names of a kind.
"""

import json
import math
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from stalegrid.errors import DataError
from stalegrid.written.files import MEBIBYTE, read_text
from stalegrid.written.numbers import finite, whole

LIMIT = 1024 * MEBIBYTE
"""Bytes of a file of JSON."""

YAML_LIMIT = 8 * MEBIBYTE
"""Bytes of a file of YAML, which is slow to read."""


@dataclass(frozen=True)
class Kind:
    """What a single value must be.

    Args:
        name: of it, with its article.
        test: whether a value is one.
    """

    name: str
    test: Callable[[Any], bool]


WHOLE = Kind("a whole number", whole)
COUNT = Kind("a whole number, 0 or more", lambda value: whole(value) and value >= 0)
NUMBER = Kind("a number", finite)
TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))


@dataclass(frozen=True)
class Maybe:
    """A field that may be null or missing.

    Args:
        shape: of what it is otherwise.
    """

    shape: Any


def checked(value: Any, shape: Any, path: Path, where: str = "content") -> Any:
    """Return a value that has a shape.

    Args:
        value: as it was parsed.
        shape: that it must have.
        path: of the file, for the message.
        where: in the file, for the message.

    Raises:
        DataError: it has not; names the file and the field.
    """
    if isinstance(shape, Maybe):
        return None if value is None else checked(value, shape.shape, path, where)
    if isinstance(shape, Kind):
        _demand(shape.test(value), value, shape.name, path, where)
    elif isinstance(shape, list):
        _demand(isinstance(value, list), value, "a list", path, where)
        for i, entry in enumerate(value):
            checked(entry, shape[0], path, f"{where}[{i}]")
    else:
        _demand(isinstance(value, dict), value, "a record", path, where)
        for name, inner in shape.items():
            if isinstance(name, Kind):
                for key, entry in value.items():
                    _demand(name.test(key), key, name.name, path, where)
                    checked(entry, inner, path, f"{where}.{key}")
            else:
                checked(value.get(name), inner, path, f"{where}.{name}")
    return value


def _demand(well: bool, value: Any, name: str, path: Path, where: str) -> None:
    if not well:
        raise DataError(f"the file is damaged (file: {path}, {where}: {reprlib.repr(value)}); this must be {name}")


def parse_json(text: str, path: Path, where: str) -> Any:
    """Parse a value in JSON; what is no number counts as null.

    Raises:
        DataError: it is none.
    """
    try:
        # NaN and Infinity are no JSON, but Python's own writer, and others, put them in.
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"the file is damaged (file: {path}, {where}): {problem}") from problem


def read_json(path: Path, shape: Any) -> Any:
    """Read a file of JSON.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    return checked(parse_json(read_text(path, LIMIT), path, "content"), shape, path)


def read_lines(path: Path, shape: Any) -> list[Any]:
    """Read a file of JSON lines; the last may be cut off, by who still writes or was killed.

    Raises:
        DataError: it cannot be read, or a line is something else.
    """
    lines = read_text(path, LIMIT).split("\n")[:-1]
    return [
        checked(parse_json(line, path, f"line {number}"), shape, path, f"line {number}")
        for number, line in enumerate(lines, start=1)
    ]


class _Loader(yaml.SafeLoader):
    """Makes plain values, each where it is written: references could make a small file a huge value.

    Plain values are those of YAML 1.2, as most people know them from JSON: 1e-3 is a number, no and 16:9 are texts.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node; see the base class."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds a reference (*name); write the value itself")
        return super().compose_node(parent, index)


_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan")

for _tag, _pattern, _first in (
    ("bool", re.compile("true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("null", re.compile("~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("int", re.compile("[-+]?(0|[1-9][0-9]*)"), "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern.pattern})$"), list(_first))


def parse_yaml(text: str, where: str) -> Any:
    """Parse plain values in YAML.

    Args:
        text: to be parsed.
        where: it was written, for the error.

    Raises:
        DataError: it is no YAML of plain values.
    """
    try:
        # As safe as yaml.safe_load, whose loader this one inherits from.
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise DataError(f"this is no YAML ({where}): {' '.join(str(problem).split())}") from problem


def read_yaml(path: Path) -> Any:
    """Read a file of YAML.

    Raises:
        DataError: it cannot be read, or is no YAML of plain values.
    """
    return parse_yaml(read_text(path, YAML_LIMIT), f"file: {path}")


class _Dumper(yaml.SafeDumper):
    """Writes every value where it is, also one that is there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return that there are none."""
        return True


# Texts that either version would take for something else are written in quotes.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))


def to_yaml(content: Any) -> str:
    """Return YAML that :func:`read_yaml` reads."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def to_line(value: Any) -> str:
    """Return a value in YAML, in one line that :func:`parse_yaml` reads."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()
