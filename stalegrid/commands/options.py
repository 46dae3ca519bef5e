"""Options from the groups of the configuration, and back.

Does not know: which command asks for what, how arguments are spelt.
"""

import argparse
import inspect
import shutil
import textwrap
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol, get_origin

import docstring_parser

from stalegrid.commands.values import metavar, read
from stalegrid.config import SHORT, option_of
from stalegrid.errors import ConfigError
from stalegrid.recipes import RunConfig
from stalegrid.written import Group, groups_of, hints_of, read_yaml, spread, taken, text_of, to_yaml

MODEL = ("model", "data", "loss", "optimizer", "schedule")
"""Groups that say what is trained."""

METHODS = "--methods"

CONFIG = "--config"

_KINDS = groups_of(RunConfig)

GROUPS = {
    name: _KINDS[name]
    for name in dict.fromkeys((*MODEL, "method", "grid", "mixing", "codec", "servers", "training", "engine", *_KINDS))
}
"""The groups, in the order in which a user thinks of them."""

HINTS = {f"{name}.{field}": hint for name, kind in GROUPS.items() for field, hint in hints_of(kind).items()}
"""The types of all fields, by path."""

EVERYTHING = tuple(HINTS)
"""The paths of all fields."""

EVERYDAY = (
    "model.name",
    "data.name",
    "method.name",
    "grid.groups",
    "grid.stages",
    "method.staleness",
    "optimizer.name",
    "optimizer.lr",
    "training.batch_size",
    "training.epochs",
    "training.updates",
    "training.seed",
    "engine.kind",
    "engine.device",
    "output.folder",
)
"""The paths of what most users set."""


class Command(Protocol):
    """What a file of this folder has.

    Attributes:
        ABOUT: a line of help.
        USAGE: what follows the command's name.
    """

    ABOUT: str
    USAGE: str

    def ask(self, parser: "Parser") -> None:
        """Add the command's options."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it and return the exit status."""


class Parser(argparse.ArgumentParser):
    """Raises what is wrong, and shows its help in lines that can be read."""

    def __init__(self, **given: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **given)

    def error(self, message: str) -> NoReturn:
        """Raise a message.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message}; see {self.prog} --help")


def fields_of(*groups: str) -> list[str]:
    """Return the paths of all fields of some groups."""
    return [path for path in EVERYTHING if path.partition(".")[0] in groups]


def add_fields(parser: Parser, paths: Collection[str], defaults: Mapping[str, Any] | None = None) -> None:
    """Add fields of the configuration as options, those of every day first, then group by group.

    Args:
        parser: of a command.
        paths: of the fields, such as ``grid.groups``.
        defaults: other ones than the configuration's, by path.
    """
    changed = defaults or {}
    everyday = parser.add_argument_group("everyday options")
    for path in (path for path in EVERYDAY if path in paths):
        _add(everyday, path, changed)
    everyday.add_argument(
        CONFIG,
        action=partial(_File, paths=paths),  # type: ignore[arg-type]
        default=[dict(changed)],
        metavar="FILE",
        help="YAML file of options, such as a run's config.yaml; options of the command line come before it",
    )
    for name, kind in GROUPS.items():
        rest = [path for path in fields_of(name) if path in paths and path not in EVERYDAY]
        titled = parser.add_argument_group(f"{name}: {_about(kind)}") if rest else None
        for path in rest:
            _add(titled, path, changed)
    parser.add_argument("--print-config", action="store_true", help="show all options as YAML and exit")


def add_own(parser: Any, option: str, hint: Any, about: str, *, default: Any = None, required: bool = False) -> None:
    """Add an option that is no field of the configuration.

    Args:
        parser: of a command, or a group of its options.
        option: such as ``--seeds``.
        hint: the type of its value.
        about: a line of help.
        default: value, where it is left out.
        required: whether it must not be left out.
    """
    name = option.removeprefix("--").replace("-", "_")
    parser.add_argument(
        option,
        action=partial(_Take, hint=hint),
        dest=name,
        default=default,
        required=required,
        metavar=metavar(hint, name),
        help=_help(about, default),
        **_flag(hint),
    )


def config_of(options: argparse.Namespace) -> RunConfig:
    """Return the configuration that the options ask for: files in the order given, over them what options say."""
    said: dict[str, Any] = {}
    given = {path: value for path, value in vars(options).items() if path in EVERYTHING}
    for source in (*options.config, given):
        for path, value in source.items():
            said[path] = _joined(said.get(path, {}), value) if isinstance(value, Changes) else value
    return RunConfig.of(_nested(said))


class Changes(list[Any]):
    """What options say of a factory's arguments, in order: mappings that are merged, after None in place of all."""


def _joined(said: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    found = dict(said)
    for change in changes:
        found = {} if change is None else _merged(found, change)
    return found


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {name for name in old if isinstance(old[name], dict) and isinstance(new.get(name), dict)}
    return {**old, **new, **{name: _merged(old[name], new[name]) for name in both}}


def _nested(paths: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path, value in paths.items():
        group, _, field = path.partition(".")
        found.setdefault(group, {})[field] = value
    return found


def names_of(path: str) -> list[str]:
    """Return the names of a field on the command line, the one that is shown first."""
    return list(dict.fromkeys((option_of(RunConfig, path), f"--{path.replace('_', '-')}")))


def _add(parser: Any, path: str, changed: Mapping[str, Any]) -> None:
    group, _, field = path.partition(".")
    usual = changed.get(path, getattr(GROUPS[group](), field))
    parser.add_argument(
        *names_of(path),
        action=partial(_Take, hint=HINTS[path]),
        dest=path,
        default=argparse.SUPPRESS,
        metavar=metavar(HINTS[path], field),
        help=_help(_TEXTS.get(path, ""), usual),
        **_flag(HINTS[path]),
    )


def _flag(hint: Any) -> dict[str, Any]:
    return {"nargs": "?", "const": "true"} if hint in (bool, bool | None) else {}


def _help(text: str, usual: Any) -> str:
    plain = text.replace("``", "").replace("%", "%%").rstrip(".")
    # Off, nothing and 0.0 say themselves where nothing is said.
    told = (usual and isinstance(usual, bool | int | float | str)) or type(usual) is int
    return f"{plain} (default: {_plain(usual)})" if told else plain


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


class _Take(argparse.Action):
    """Reads the value of an option by its type."""

    def __init__(self, option_strings: Sequence[str], dest: str, hint: Any, **given: Any) -> None:
        super().__init__(option_strings, dest, **given)
        self._hint = hint

    def __call__(self, parser: Any, options: argparse.Namespace, text: Any, option: str | None = None) -> None:
        name = option or self.dest
        if get_origin(self._hint) is not dict:
            setattr(options, self.dest, read(text, self._hint, name))
            return
        # Not yet joined with what files say of the same factory, which may be read later.
        merged = text.startswith(MERGED)
        value = read(text.removeprefix(MERGED), self._hint, name)
        changes = [value] if merged else [None, value]
        setattr(options, self.dest, Changes([*getattr(options, self.dest, ()), *changes]))


MERGED = "+"
"""Before arguments of a factory that are joined with others, as those are that options name one by one."""


class _File(argparse.Action):
    """Reads a file of options: of those that a command has none of, it says nothing."""

    def __init__(self, option_strings: Sequence[str], dest: str, paths: Collection[str], **given: Any) -> None:
        super().__init__(option_strings, dest, **given)
        self._paths = paths

    def __call__(self, parser: Any, options: argparse.Namespace, text: Any, option: str | None = None) -> None:
        said = {path: value for path, value in content_of(Path(text)).items() if path in self._paths}
        setattr(options, self.dest, [*getattr(options, self.dest), said])


def content_of(path: Path) -> dict[str, Any]:
    """Return what a file of options says, by the paths of fields.

    Raises:
        ConfigError: it holds something else.
        DataError: it cannot be read.
    """
    content = read_yaml(path)
    if content is None:  # an empty file
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"the file holds no options (config: {path}); write them as name: value")
    short = {whole: name for name, whole in SHORT.items() if name in content}
    found: dict[str, Any] = {}
    try:
        for group, fields in spread(RunConfig, content, SHORT).items():
            for field, value in fields.items():
                whole = f"{group}.{field}"
                found[whole] = taken(value, HINTS[whole], short.get(whole, whole))
    except ConfigError as problem:
        raise ConfigError(f"{problem} (config: {path})") from problem
    return found


def shown(options: argparse.Namespace) -> str:
    """Return all options as the content of a file of them."""
    config = config_of(options)
    return to_yaml({name: text_of(vars(getattr(config, name))) for name in GROUPS})


class _Help(argparse.HelpFormatter):
    """Writes each option under the name that people use."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(shutil.get_terminal_size().columns, 120) - 2)

    def _split_lines(self, text: str, width: int) -> list[str]:
        # Names with hyphens are to be copied.
        return textwrap.wrap(text, width, break_on_hyphens=False)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        if action.nargs == 0:
            return ", ".join(action.option_strings)
        name, sign = action.option_strings[0], action.metavar
        if sign == "YAML":
            return f"{name}.NAME VALUE"
        return f"{name} [{sign}]" if action.nargs == "?" else f"{name} {sign}"


def _about(kind: type[Group]) -> str:
    about = docstring_parser.parse(inspect.getdoc(kind) or "").short_description or ""
    return (about[:1].lower() + about[1:]).rstrip(".").partition(";")[0]


_TEXTS = {
    f"{name}.{entry.arg_name}": " ".join((entry.description or "").split())
    for name, kind in GROUPS.items()
    for entry in docstring_parser.parse(inspect.getdoc(kind) or "").params
}
"""What is said of all fields, by path; nothing where Python has left docstrings out."""
