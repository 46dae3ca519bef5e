"""The command line: finds the command, runs it, and says what went wrong.

Does not know: what any command asks for or does.
"""

import os
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from textwrap import shorten

from jsonargparse import ArgumentParser

from stalegrid.commands import compare, methods, plan, profile, replay, report, table, train, verify
from stalegrid.commands.options import Command, Formatter, expanded
from stalegrid.engines.signals import ending_in_order
from stalegrid.errors import ConfigError, StalegridError
from stalegrid.observe.stream import tell
from stalegrid.version import __version__

COMMANDS: dict[str, Command] = {
    "train": train,
    "compare": compare,
    "verify": verify,
    "replay": replay,
    "profile": profile,
    "plan": plan,
    "report": report,
    "table": table,
    "methods": methods,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 well, 1 not, 2 for a wrong request."""
    with ending_in_order():
        _open_streams()
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(given: Sequence[str]) -> int:
    command = given[0] if given and given[0] in COMMANDS else ""
    try:
        parser, known = make_parser()
        words = _named(_checked(given))
        if command:
            words = [command, *expanded(words[1:], known[command])]
        chosen = parser.parse_args(words)
        command = chosen.command
        return COMMANDS[command].run(chosen[command])
    except ConfigError as error:
        _complain(command, error)
        return 2
    except ArgumentError as error:
        _complain(command, f"{shorten(str(error), 500)}; see stalegrid {command} --help".replace("  ", " "))
        return 2
    except StalegridError as error:
        _complain(command, f"{type(error).__name__}: {error}")
        return 1
    except KeyboardInterrupt:
        _complain(command, "interrupted; what --out names holds the results so far")
        return 130


def _open_streams() -> None:
    """Let streams that were closed lead nowhere: the next file that is opened would have their number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
            if stream.fileno() == number:
                os.set_inheritable(number, True)  # workers need it too
            setattr(sys, name, stream)


def _complain(command: str, what: object) -> None:
    tell(f"stalegrid {command}: {what}" if command else f"stalegrid: {what}", "stderr")


def make_parser() -> tuple[ArgumentParser, dict[str, set[str]]]:
    """Return the parser of all commands, and the options of each."""
    parser = ArgumentParser(
        exit_on_error=False, prog="stalegrid", description="Train on a grid of groups x stages, with bounded staleness."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subcommands(dest="command")
    known: dict[str, set[str]] = {}
    for name, command in COMMANDS.items():
        sub = ArgumentParser(
            exit_on_error=False,
            description=command.ABOUT,
            usage=f"stalegrid {name} {command.USAGE}",
            formatter_class=Formatter,
        )
        command.ask(sub)
        commands.add_subcommand(name, sub, help=command.ABOUT)
        known[name] = set(sub._option_string_actions)
    return parser, known


def _named(arguments: Sequence[str]) -> list[str]:
    """Let people write compare RUN.yaml: the parser wants --config RUN.yaml."""
    if len(arguments) > 1 and arguments[0] == "compare" and not arguments[1].startswith("-"):
        return ["compare", "--config", *arguments[1:]]
    return list(arguments)


def _checked(arguments: Sequence[str]) -> Sequence[str]:
    """Refuse what the parser would fail at instead of refusing it.

    Raises:
        ConfigError: an argument is not text.
    """
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            raise ConfigError(f"an argument is not text in UTF-8 (argument: {argument!r}); write or rename it so")
    return arguments
