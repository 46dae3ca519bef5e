"""Options from the groups of the configuration, and back.

Does not know: which command asks for what.
"""

import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Union, get_args, get_origin

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from stalegrid.config import SHORT, option_of
from stalegrid.errors import ConfigError
from stalegrid.recipes.settings import RunConfig
from stalegrid.written.groups import Group, groups_of, hints_of, spread, unknown
from stalegrid.written.kept import read_yaml

MODEL = ("model", "data", "loss", "optimizer", "schedule")
"""Groups that say what is trained."""

METHODS = "--methods"

GROUPS = groups_of(RunConfig)

EVERYTHING = tuple(f"{name}.{field}" for name, kind in GROUPS.items() for field in hints_of(kind))
"""The paths of all fields."""


class Command(Protocol):
    """What a file of this folder has.

    Attributes:
        ABOUT: a line of help.
        USAGE: what follows the command's name.
    """

    ABOUT: str
    USAGE: str

    def ask(self, parser: ArgumentParser) -> None:
        """Add the command's options."""

    def run(self, options: Namespace) -> int:
        """Do it and return the exit status."""


def fields_of(*groups: str) -> list[str]:
    """Return the paths of all fields of some groups."""
    return [path for path in EVERYTHING if path.partition(".")[0] in groups]


def add_fields(parser: ArgumentParser, paths: Collection[str], defaults: Mapping[str, Any] | None = None) -> None:
    """Add fields of the configuration as options, those of every day first, then group by group.

    Args:
        parser: of a command.
        paths: of the fields, such as ``grid.groups``.
        defaults: other ones than the configuration's, by path.
    """
    everyday = parser.add_argument_group("options of every day")
    everyday.add_argument("--config", action="config", help="YAML file of options, such as a run's config.yaml")
    for name, kind in GROUPS.items():
        own = [path for path in EVERYTHING if path in paths and path.startswith(f"{name}.")]
        rest = [path for path in own if not _is_short(path)]
        titled = parser.add_argument_group(f"{name}: {_about(kind)}") if rest else None
        for path in own:
            field = path.partition(".")[2]
            where = everyday if titled is None or _is_short(path) else titled
            where.add_argument(
                f"--{path.replace('_', '-')}",
                type=_plain(hints_of(kind)[field]),
                default=(defaults or {}).get(path, getattr(kind(), field)),
                help=_texts(kind)[field].replace("%", "%%"),
            )


def config_of(options: Namespace) -> RunConfig:
    """Return the configuration that the options ask for."""
    return RunConfig.of({name: options[name].as_dict() for name in GROUPS if name in options})


def expanded(arguments: Sequence[str], known: Collection[str]) -> list[str]:
    """Return arguments as the parser wants them: whole names, lists in brackets, files of options as they are read.

    Args:
        arguments: of a command.
        known: whole names of its options.

    Raises:
        ConfigError: there is no such option, or a file of options cannot be read or says something else.
    """
    found: list[str] = []
    waiting = ""
    for argument in arguments:
        if waiting:
            found.append(_value(waiting, argument, known))
            waiting = ""
            continue
        if not argument.startswith("--") or argument == "--":
            found.append(argument)
            continue
        option, equals, value = argument.partition("=")
        option = _whole(option, known)
        if equals:
            found.append(f"{option}={_value(option, value, known)}")
            continue
        found.append(option)
        waiting = option if option in _LISTS or option == CONFIG else ""
    return found


CONFIG = "--config"


class Formatter(DefaultHelpFormatter):
    """Writes options under the names that people use."""

    def _format_action_invocation(self, action: Any) -> str:
        text: str = super()._format_action_invocation(action)
        for option in action.option_strings:
            text = text.replace(option, _NAMES.get(option, option))
        return text.replace(" {true,false}", " true|false")


def _option(path: str) -> str:
    return f"--{path.replace('_', '-')}"


def _is_short(path: str) -> bool:
    return option_of(RunConfig, path) != _option(path)


_NAMES = {_option(path): option_of(RunConfig, path) for path in EVERYTHING}
"""What people write, by the whole names of options."""


def _whole(option: str, known: Collection[str]) -> str:
    whole = _WHOLE.get(option, option)
    if whole in known or option == "--help" or any(whole.startswith(f"{name}.") for name in _ARGS if name in known):
        return whole
    near = sorted({_NAMES.get(name, name) for name in known if name.startswith("--")} - {"--help"})
    raise ConfigError(unknown("option", option, near))


def _value(option: str, value: str, known: Collection[str]) -> str:
    if option == CONFIG:
        return _content(Path(value), known)
    if option in _LISTS and not value.startswith("[") and value != "auto":
        return json.dumps(value.split(",")) if _LISTS[option] else f"[{value}]"
    return value


def _content(path: Path, known: Collection[str]) -> str:
    """Return what a file of options says of the options of a command, in one line."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"the file holds no options (config: {path}); write them as name: value")
    try:
        said = spread(RunConfig, content, SHORT)
    except ConfigError as problem:
        raise ConfigError(f"{problem} (config: {path})") from problem
    asked = {
        group: {field: value for field, value in fields.items() if _option(f"{group}.{field}") in known}
        for group, fields in said.items()
    }
    return json.dumps({group: fields for group, fields in asked.items() if fields})


def _plain(hint: Any) -> Any:
    """Return the type of a field without what cannot be written: classes, functions and graphs."""
    parts = [_plain(part) for part in get_args(hint)]
    if get_origin(hint) is Literal or hint is Any:
        return hint
    if get_origin(hint) is list:
        return list[parts[0]]  # type: ignore[valid-type]
    if get_origin(hint) is dict:
        return dict[str, Any]
    if get_origin(hint) in (type, Literal) or (parts and get_origin(hint) not in _UNIONS):
        return None
    if parts:
        kept = [part for part in parts if part is not None]
        return Union[tuple(sorted(kept, key=lambda part: part is str))]  # noqa: UP007 - text takes whatever is left
    return hint if hint in (bool, int, float, str, Path, type(None)) else None


_UNIONS = (Union, get_origin(int | str))


def _listed() -> dict[str, bool]:
    """Return the options that are lists, and whether of words."""
    found: dict[str, bool] = {METHODS: True}
    for name, kind in GROUPS.items():
        for field, hint in hints_of(kind).items():
            entries = [part for part in (hint, *get_args(hint)) if get_origin(part) is list]
            if entries and str not in get_args(hint):
                found[_option(f"{name}.{field}")] = "str" in str(entries[0])
    return found


_LISTS = _listed()

_WHOLE = {
    **{_option(name): _option(path) for name, path in SHORT.items()},
    **{_option(name): _option(f"{name}.{kind.OWN}") for name, kind in GROUPS.items() if kind.OWN},
}
"""Whole names of options by short ones."""

_ARGS = [_option(path) for path in EVERYTHING if path.endswith(".args")]
"""Options whose names go on with those of a factory's arguments."""


def _about(kind: type[Group]) -> str:
    about = docstring_parser.parse(inspect.getdoc(kind) or "").short_description or ""
    return about[:1].lower() + about[1:].rstrip(".")


def _texts(kind: type[Group]) -> dict[str, str]:
    parsed = docstring_parser.parse(inspect.getdoc(kind) or "")
    return {p.arg_name: " ".join((p.description or "").split()) for p in parsed.params}
