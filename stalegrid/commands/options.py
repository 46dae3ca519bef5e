"""Options from the fields of the configuration, and back.

Does not know: which command asks for what.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, Namespace

from stalegrid.config import DeviceSettings, RunConfig

MODEL = ("data", "data_dir", "model", "augment", "optimizer", "lr", "momentum", "nesterov", "weight_decay", "schedule")
MACHINE = ("batch_size", "device", "dtype", "threads", "seed", "cuts")
EXCHANGE = ("mixing", "topology", "edges", "matrix", "period", "lag")
DISTURBED = ("costs", "slow", "jitter", "stalls", "link", "lateral_link", "outages")
PIPELINE = ("groups", "stages", "staleness", "queues", "within", "view", "micro_batches")

EVERYTHING = tuple(f.name for f in dataclasses.fields(RunConfig))
TIMED = tuple(f.name for f in dataclasses.fields(DeviceSettings))

METHODS = "--methods"


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


def add_fields(parser: ArgumentParser, names: Sequence[str], defaults: Mapping[str, Any] | None = None) -> None:
    """Add fields of the configuration as options, and a file of them where they say what is trained.

    Args:
        parser: of a command.
        names: of the fields.
        defaults: other ones than the configuration's.
    """
    if "model" in names:
        parser.add_argument("--config", action="config", help="YAML file of options")
    hints, texts = get_type_hints(RunConfig), _help()
    for f in dataclasses.fields(RunConfig):
        if f.name in names:
            default = (defaults or {}).get(f.name, f.default)
            parser.add_argument(_option(f.name), type=hints[f.name], default=default, help=texts.get(f.name))


def config_of(options: Namespace) -> RunConfig:
    """Return the configuration that the options ask for."""
    return RunConfig(**{name: options[name] for name in EVERYTHING if name in options})


def bracket(arguments: Sequence[str]) -> list[str]:
    """Let people write lists as 4,2,0 or conv1,fc: the parser wants [4,2,0] or ["conv1","fc"]."""
    of_words = _lists()

    def bracketed(option: str, value: str) -> str:
        if value.startswith("[") or value == "auto":
            return value
        return json.dumps(value.split(",")) if of_words[option] else f"[{value}]"

    found: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if equals and option in of_words:
            argument = f"{option}={bracketed(option, value)}"
        elif before in of_words:
            argument = bracketed(before, argument)
        found.append(argument)
    return found


def _lists() -> dict[str, bool]:
    """Return the options that are lists, and whether of words."""
    hints = {name: str(hint) for name, hint in get_type_hints(RunConfig).items()}
    return {METHODS: True, **{_option(name): "str" in hint for name, hint in hints.items() if "list" in hint}}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help() -> dict[str, str]:
    docs = [docstring_parser.parse(c.__doc__ or "") for c in reversed(RunConfig.__mro__)]
    return {p.arg_name: (p.description or "").replace("%", "%%") for doc in docs for p in doc.params}
