"""The command line: finds the command, runs it, and says what went wrong.

Does not know: what any command asks for or does.
"""

import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from stalegrid.commands import bench, compare, methods, plan, profile, replay, report, table, train, verify
from stalegrid.commands.options import Command, bracket
from stalegrid.engines.signals import ending_in_order
from stalegrid.errors import ConfigError, StalegridError
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
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 well, 1 not, 2 for a wrong request."""
    with ending_in_order():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    chosen = make_parser().parse_args(bracket(_named(given)))
    command = chosen.command
    try:
        return COMMANDS[command].run(chosen[command])
    except ConfigError as error:
        print(f"stalegrid {command}: {error}", file=sys.stderr)
        return 2
    except StalegridError as error:
        print(f"stalegrid {command}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stalegrid {command}: interrupted; what --out names holds the results so far", file=sys.stderr)
        return 130


def make_parser() -> ArgumentParser:
    """Return the parser of all commands."""
    parser = ArgumentParser(prog="stalegrid", description="Train on a grid of groups x stages, with bounded staleness.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subcommands(dest="command")
    for name, command in COMMANDS.items():
        sub = ArgumentParser(description=command.ABOUT, usage=f"stalegrid {name} {command.USAGE}")
        command.ask(sub)
        commands.add_subcommand(name, sub, help=command.ABOUT)
    return parser


def _named(arguments: Sequence[str]) -> list[str]:
    """Let people write compare RUN.yaml: the parser wants --config RUN.yaml."""
    if len(arguments) > 1 and arguments[0] == "compare" and not arguments[1].startswith("-"):
        return ["compare", "--config", *arguments[1:]]
    return list(arguments)
